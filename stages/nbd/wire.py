"""Numbers, layouts and limits of the NBD protocol.

Source of the numbers: the protocol document of the Network Block Device project (``proto.md``).
All integers on the wire are big-endian.
"""

from __future__ import annotations

import struct

# Handshake
NBD_MAGIC = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003E889045565A9

GREETING = struct.Struct(">QQH")  # magic, option magic, handshake flags
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">QII")  # magic, option, length
OPTION_REPLY = struct.Struct(">QIII")  # magic, option, reply type, length
EXPORT_NAME_REPLY = struct.Struct(">QH")  # size, transmission flags
INFO_EXPORT_REPLY = struct.Struct(">HQH")  # info type, size, transmission flags
INFO_BLOCK_SIZE_REPLY = struct.Struct(">HIII")  # info type, minimum, preferred, maximum
U16 = struct.Struct(">H")
U32 = struct.Struct(">I")
EXPORT_NAME_PADDING = 124

FIXED_NEWSTYLE = 1 << 0
NO_ZEROES = 1 << 1

OPT_EXPORT_NAME = 1
OPT_ABORT = 2
OPT_LIST = 3
OPT_STARTTLS = 5
OPT_INFO = 6
OPT_GO = 7
OPT_STRUCTURED_REPLY = 8
OPT_LIST_META_CONTEXT = 9
OPT_SET_META_CONTEXT = 10

REP_ACK = 1
REP_SERVER = 2
REP_INFO = 3
REP_META_CONTEXT = 4
REP_ERR = 1 << 31
REP_ERR_UNSUP = REP_ERR + 1
REP_ERR_INVALID = REP_ERR + 3
REP_ERR_UNKNOWN = REP_ERR + 6
REP_ERR_TOO_BIG = REP_ERR + 9

INFO_EXPORT = 0
INFO_NAME = 1
INFO_DESCRIPTION = 2
INFO_BLOCK_SIZE = 3

BASE_ALLOCATION = "base:allocation"
ALLOCATION_ID = 1

# Transmission flags of an export
HAS_FLAGS = 1 << 0
READ_ONLY = 1 << 1
SEND_FLUSH = 1 << 2
SEND_FUA = 1 << 3
SEND_TRIM = 1 << 5
SEND_WRITE_ZEROES = 1 << 6
SEND_DF = 1 << 7
CAN_MULTI_CONN = 1 << 8

# Transmission
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF

REQUEST = struct.Struct(">IHHQQI")  # magic, command flags, command, cookie, offset, length
SIMPLE_REPLY = struct.Struct(">IIQ")  # magic, error, cookie
STRUCTURED_REPLY = struct.Struct(">IHHQI")  # magic, flags, chunk type, cookie, length
DATA_REPLY = struct.Struct(">IHHQIQ")  # a structured reply's header and the offset of its data
ERROR_CHUNK = struct.Struct(">IH")  # error, length of the message

CMD_READ = 0
CMD_WRITE = 1
CMD_DISC = 2
CMD_FLUSH = 3
CMD_TRIM = 4
CMD_CACHE = 5
CMD_WRITE_ZEROES = 6
CMD_BLOCK_STATUS = 7

FLAG_FUA = 1 << 0
FLAG_NO_HOLE = 1 << 1
FLAG_DF = 1 << 2
FLAG_REQ_ONE = 1 << 3
FLAG_FAST_ZERO = 1 << 4

REPLY_FLAG_DONE = 1 << 0
CHUNK_OFFSET_DATA = 1
CHUNK_BLOCK_STATUS = 5
CHUNK_ERROR = (1 << 15) + 1

STATE_HOLE = 1 << 0
STATE_ZERO = 1 << 1

# Errors on the wire are these numbers on every platform.
EPERM = 1
EIO = 5
ENOMEM = 12
EINVAL = 22
ENOSPC = 28
EOVERFLOW = 75
ENOTSUP = 95
ESHUTDOWN = 108

# Limits. The protocol bounds strings at 4096 bytes; 32 MiB is what clients take as the largest
# payload of a server that does not say; the rest is ours.
MAX_STRING = 4096
MAX_PAYLOAD = 32 << 20
MAX_OPTION = 64 << 10  # an option's data that is read; up to MAX_SKIPPED is skipped, unread
MAX_SKIPPED = 1 << 20
MAX_OPTIONS = 16384  # options of one handshake
MAX_QUERIES = 64
MAX_EXTENTS = 2048  # descriptors in one block status reply (16 KiB)
MAX_MESSAGE = 256  # bytes of an error's text
MAX_SIZE = (1 << 63) - 1
