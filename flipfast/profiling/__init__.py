"""Where the time of a run goes: stages, their work, and what the device could do at best."""
