"""Operations: long work that is named, timed, watched, cancelled and kept."""
