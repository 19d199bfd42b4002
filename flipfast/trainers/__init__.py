"""One file a trainer: the reward in the shape in which that trainer calls one."""
