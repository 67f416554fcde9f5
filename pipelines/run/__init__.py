"""Where shards are written: in this process, on workers of this machine, or through Beam."""
