"""Operations of a decoder layer: one file per kind of device."""
