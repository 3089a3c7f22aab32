package bireal.backend;

/**
 * uint8 source images [H0,W0,C], zero-padded by {@code pad}, cropped to [H,W] (native/ops/image).
 */
public record ImageSpec(int H0, int W0, int C, int H, int W, int pad) {}
