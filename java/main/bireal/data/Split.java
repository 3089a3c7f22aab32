package bireal.data;

/** Part of a dataset. */
public enum Split {
  TRAIN,
  TEST
}
