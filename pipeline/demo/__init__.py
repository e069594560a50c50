"""The demonstration: a machine's disk protected while it is written to, destroyed, brought back.

``story`` tells it, step by step; ``guest`` is the machine, ``client`` its NBD device, ``daemon``
and ``commands`` run what a person would type, as processes that never outlive the demonstration.
"""
