"""A machine's disks as one group: attaching them, keeping them scanned, cool and in one stream."""
