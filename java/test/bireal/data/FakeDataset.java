package bireal.data;

import java.nio.ByteBuffer;

/** Images of 4x4x2 whose pixels tell their index; subclasses misbehave. */
class FakeDataset implements Dataset {
  private final int count;

  FakeDataset(int count) {
    this.count = count;
  }

  @Override
  public String name() {
    return "fake";
  }

  @Override
  public int count() {
    return count;
  }

  @Override
  public int height() {
    return 4;
  }

  @Override
  public int width() {
    return 4;
  }

  @Override
  public int channels() {
    return 2;
  }

  @Override
  public int classes() {
    return 7;
  }

  @Override
  public int label(int index) {
    return index % 7;
  }

  @Override
  public void copyPixels(int index, ByteBuffer target, int offsetBytes) {
    for (int i = 0; i < 32; i++) {
      target.put(offsetBytes + i, (byte) (index * 5 + i));
    }
  }
}
