"""The client of a flipfast server: needs neither torch nor triton nor transformers."""
