"""How events leave: batches are cut from sealed segments, written, settled, and tried again."""
