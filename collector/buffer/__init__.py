"""The spool: what is answered is in here until its sink has it. Frames in segments, segments in a spool."""
