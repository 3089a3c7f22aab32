package bireal.backend.cpu;

/**
 * Instruction sets of the CPU backend, each including those before it; codes of native/cpu/isa.h.
 */
public enum Isa {
  SCALAR(0),
  AVX2(1),
  AVX512(2),
  AVX512_VPOPCNTDQ(3),
  AMX(4);

  public final int code;

  Isa(int code) {
    this.code = code;
  }

  static Isa of(int code) {
    for (Isa isa : values()) {
      if (isa.code == code) {
        return isa;
      }
    }
    throw new IllegalArgumentException("no instruction set has code " + code);
  }
}
