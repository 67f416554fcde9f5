"""Running the writes: in this process, in worker processes of this machine, or through Beam."""
