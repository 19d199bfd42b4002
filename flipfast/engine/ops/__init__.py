"""Operations of a decoder layer: one file a kind of device."""
