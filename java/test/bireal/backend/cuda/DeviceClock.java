package bireal.backend.cuda;

import bireal.backend.Backend;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import jcuda.driver.CUdevice;
import jcuda.driver.CUdevice_attribute;
import jcuda.driver.CUevent;
import jcuda.driver.JCudaDriver;

/**
 * Times the ops of a CUDA backend on the device: an event before and behind each call, and no wait
 * before the last, so the device is as busy as in a step. ({@link bireal.backend.Profile} times
 * calls on the host, which for a GPU is when they are queued.) Between {@link #start} and {@link
 * #stop} nothing is replayed from graphs; else the backend is as it was.
 */
public final class DeviceClock {
  /** One call and its time on the device. */
  public record Timed(Method op, List<Object> arguments, double ms) {}

  /** Questions, what waits for the device, and what runs on another stream. */
  private static final Set<String> NOT_TIMED =
      Set.of(
          "description",
          "availableBytes",
          "allocate",
          "stores",
          "write",
          "read",
          "forget",
          "upload",
          "awaitUploads",
          "releaseUploads",
          "batchNormSlices",
          "equals",
          "hashCode",
          "toString",
          "close");

  /** Population counts of 32 bits a cycle and multiprocessor, 7.5 to 12.0 (CUDA's manual). */
  private static final int POPCOUNTS_A_CYCLE = 16;

  private record Call(Method op, List<Object> arguments) {}

  private final CudaBackend backend;
  private final List<Call> calls = new ArrayList<>();
  private final List<CUevent> events = new ArrayList<>();
  private boolean running;

  public DeviceClock(CudaBackend backend) {
    this.backend = backend;
  }

  /** The same backend, timed; what it throws passes through. */
  public Backend backend() {
    return (Backend)
        Proxy.newProxyInstance(
            Backend.class.getClassLoader(),
            new Class<?>[] {Backend.class},
            (proxy, method, args) -> call(method, args));
  }

  private Object call(Method method, Object[] args) throws Throwable {
    String op = method.getName();
    if (running && op.equals("replay")) {
      ((Runnable) args[0]).run();
      return null;
    }
    boolean timed =
        running && !NOT_TIMED.contains(op) && !op.endsWith("Bytes") && !op.startsWith("plan");
    if (timed) {
      mark(2 * calls.size());
    }
    try {
      return method.invoke(backend, args);
    } catch (InvocationTargetException e) {
      throw e.getCause();
    } finally {
      if (timed) {
        mark(2 * calls.size() + 1);
        calls.add(new Call(method, args == null ? List.of() : Arrays.asList(args)));
      }
    }
  }

  private void mark(int i) {
    if (i == events.size()) {
      CUevent event = new CUevent();
      backend.call("cuEventCreate", () -> JCudaDriver.cuEventCreate(event, 0));
      events.add(event);
    }
    backend.call("cuEventRecord", () -> JCudaDriver.cuEventRecord(events.get(i), backend.stream()));
  }

  public void start() {
    calls.clear();
    running = true;
  }

  /** Waits; the calls since {@link #start}. */
  public List<Timed> stop() {
    running = false;
    synchronize();
    List<Timed> timed = new ArrayList<>();
    for (int i = 0; i < calls.size(); i++) {
      float[] ms = new float[1];
      CUevent before = events.get(2 * i);
      CUevent behind = events.get(2 * i + 1);
      backend.call("cuEventElapsedTime", () -> JCudaDriver.cuEventElapsedTime(ms, before, behind));
      timed.add(new Timed(calls.get(i).op, calls.get(i).arguments, ms[0]));
    }
    return timed;
  }

  /** Waits for the device. */
  public void synchronize() {
    backend.call("cuStreamSynchronize", () -> JCudaDriver.cuStreamSynchronize(backend.stream()));
  }

  /** Kernels, copies and fills of what is recorded as graphs. */
  public long launches() {
    return backend.graphs().launches();
  }

  /** Multiply-accumulates of bits a second that population counts allow at the top clock. */
  public double popcountMacsPerSecond() {
    return 32.0
        * POPCOUNTS_A_CYCLE
        * attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
        * attribute(CUdevice_attribute.CU_DEVICE_ATTRIBUTE_CLOCK_RATE)
        * 1e3;
  }

  private int attribute(int which) {
    CUdevice device = new CUdevice();
    int[] value = new int[1];
    backend.call(
        "cuDeviceGetAttribute",
        () -> {
          JCudaDriver.cuDeviceGet(device, backend.about().ordinal());
          JCudaDriver.cuDeviceGetAttribute(value, which, device);
        });
    return value[0];
  }

  /** Frees the events; before the backend is closed. */
  public void close() {
    for (CUevent event : events) {
      backend.call("cuEventDestroy", () -> JCudaDriver.cuEventDestroy(event));
    }
    events.clear();
  }
}
