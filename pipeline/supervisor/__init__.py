"""The supervisor: a process over intake and delivery, with one nursery for each machine."""
