"""When work is done for a machine: planners without a clock, a loop or a machine."""
