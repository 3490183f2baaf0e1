//! Configuration, agents, supervisor and command line: the binary r3mes.
