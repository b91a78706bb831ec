"""Operations on a whole batch: images and targets mixed, drawn once a batch."""
