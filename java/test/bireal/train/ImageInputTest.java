package bireal.train;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bireal.backend.ImageSpec;
import java.nio.ByteBuffer;
import org.junit.jupiter.api.Test;

final class ImageInputTest {
  /** 32x32 with 4 pixels around, cropped to 32x24: rows 0 to 8, columns 0 to 16. */
  private static final ImageSpec SPEC = new ImageSpec(32, 32, 3, 32, 24, 4);

  @Test
  void aCropOutsideThePaddedImageIsRefusedBeforeItIsUploaded() {
    assertDoesNotThrow(() -> check(0, 0, 0));
    assertDoesNotThrow(() -> check(8, 16, 1));
    for (int[] crop :
        new int[][] {{-1, 0, 0}, {9, 0, 0}, {0, -1, 0}, {0, 17, 0}, {0, 0, 2}, {0, 0, -1}}) {
      IllegalArgumentException e =
          assertThrows(IllegalArgumentException.class, () -> check(crop[0], crop[1], crop[2]));
      String says =
          "image 1 of the micro-batch: crop at row %d, column %d, flip %d, is not one of "
              .formatted(crop[0], crop[1], crop[2]);
      assertTrue(e.getMessage().startsWith(says), e.getMessage());
    }
  }

  @Test
  void cropsBehindTheImagesAreNotLookedAt() {
    ByteBuffer crops = ByteBuffer.allocate(2 * 3 * Integer.BYTES).putInt(0, 8).putInt(12, 99);
    assertDoesNotThrow(() -> ImageInput.checkCrops(crops, 1, SPEC));
    assertEquals(0, crops.position());
  }

  /** Of the second of two images; the first is right. */
  private static void check(int top, int left, int flip) {
    ByteBuffer crops = ByteBuffer.allocate(2 * 3 * Integer.BYTES);
    crops.putInt(12, top).putInt(16, left).putInt(20, flip);
    ImageInput.checkCrops(crops, 2, SPEC);
  }
}
