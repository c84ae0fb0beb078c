"""Style sets: built from folders or lists, divided by labels, kept with their negatives."""
