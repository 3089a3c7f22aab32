// scheduler: streams, events and graphs. Work is queued and runs only where a program waits for it, in a random legal order, so a
// missing event wait shows as wrong bits; and whether two pieces of work were ordered at all is computed with vector clocks, so a
// missing wait is also reported when the order happened to be right.
//
// Clock     each stream, and each branch of an instantiated graph, is a lane; work is the n-th of its lane and knows for every
// lane
//           how many of it come before. a is before b if b's clock holds a's place. The host has a clock too: what it waited for.
// Conflict  two pieces of work, neither before the other, that touch a common byte, one of them writing.
// Capture   follows the CUDA programming guide: forks and joins by events, and rules of the THREAD_LOCAL and GLOBAL modes.
#pragma once
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "emulator/platform/export.h"
#include "emulator/platform/memory.h"
#include "emulator/platform/monitor.h"
#include "emulator/platform/results.h"

namespace bireal::emulator {

/// A refused call: the code that it returns, and why.
class Refused : public std::runtime_error {
 public:
  Refused(int code, const std::string& why) : std::runtime_error(why), code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

/// Work that faulted while it ran: the sticky code, and what happened.
class DeviceFault : public std::runtime_error {
 public:
  DeviceFault(int code, const std::string& what) : std::runtime_error(what), code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

using Clock = std::vector<uint64_t>;  // by lane; lanes beyond its end are 0
void join(Clock& clock, const Clock& other);

class Execution;

/// A piece of work: what a stream's queue or a graph's node holds. `run` may be called many times (replay).
struct Work {
  std::string name;
  int kind = BIREAL_EMULATOR_LIBRARY;  ///< BIREAL_EMULATOR_...
  std::function<void(Execution&)> run;
  Range pinned_source;  ///< host memory that is read when it runs: the host must leave it alone until then
  Range pinned_target;  ///< host memory that is written when it runs: reading it earlier shall show NaN
};

/// One run of a Work: its place in the order, and what it touched.
struct Task {
  std::shared_ptr<const Work> work;
  uint64_t stream = 0;  ///< handle, for messages
  bool replay = false;
  int lane = 0;
  Clock clock;
  AccessSet touched;
  uint64_t source_hash = 0;
  uint64_t source_writes = 0;  ///< device_writes of the pinned source when it was queued
  bool watch_source = false;
  std::string text() const;
};

/// What `Work::run` uses: checks and notes each access. Copies and library calls name their ranges, kernels report theirs.
class BIREAL_EXPORT Execution {
 public:
  Execution(Memory& memory, Monitor& monitor, Task& task, Record& record)
      : memory_(memory), monitor_(monitor), task_(task), record_(record) {}
  /// The range must be live and wholly written before.
  void read(Range range, const char* what);
  /// The range must be live; it counts as written from now on.
  void write(Range range, const char* what);
  /// Device to device: unwritten bytes stay unwritten.
  void copy(uint64_t target, uint64_t source, uint64_t bytes);
  /// Scratch memory: overwritten with NaN and unwritten afterwards.
  void scratch(Range range, const char* what);
  void find(const std::string& text);
  Memory& memory() { return memory_; }
  Monitor& monitor() { return monitor_; }
  Task& task() { return task_; }
  Record& record() { return record_; }

 private:
  Block& live(Range range, const char* what);
  Memory& memory_;
  Monitor& monitor_;
  Task& task_;
  Record& record_;
};

struct Stream;
struct Graph;

/// One recording of an event.
struct EventPoint {
  uint64_t stream = 0;
  Clock clock;
  bool complete = false;
  std::chrono::steady_clock::time_point time;
};

struct Capture {
  uint64_t id = 0;
  uint64_t origin = 0;
  int mode = 0;
  std::thread::id thread;
  bool invalid = false;
  std::string why_invalid;
  std::shared_ptr<Graph> graph;
  std::set<uint64_t> streams;
};

struct Event {
  unsigned flags = 0;
  std::shared_ptr<EventPoint> point;  ///< of the last recording outside a capture
  std::weak_ptr<Capture> capture;     ///< of the last recording inside one
  bool captured = false;
  std::vector<int> captured_after;  ///< nodes of that capture that come before
};

struct Graph {
  struct Node {
    std::shared_ptr<const Work> work;
    std::vector<int> after;  ///< nodes before it
    int branch = 0;          ///< captured stream
  };
  std::vector<Node> nodes;
  int branch_count = 0;
};

/// An instantiated graph.
struct GraphExec {
  std::vector<Graph::Node> nodes;
  std::vector<int> lanes;  ///< by branch
  Clock last;              ///< of its last launch: launches of one GraphExec never overlap
  std::shared_ptr<struct GraphRun> last_run;
};

/// One launch of a graph: nodes run as their predecessors are done.
struct GraphRun {
  std::shared_ptr<GraphExec> exec;
  uint64_t stream = 0;
  std::shared_ptr<GraphRun> previous;  ///< earlier launch of the same GraphExec, which must be over
  std::vector<std::shared_ptr<Task>> tasks;
  std::vector<bool> done;
  size_t left = 0;
};

struct Stream {
  uint64_t handle = 0;
  unsigned flags = 0;      ///< CU_STREAM_NON_BLOCKING = 1
  bool destroyed = false;  ///< the handle is gone, its queue still drains
  int priority = 0;
  int lane = 0;
  Clock clock;  ///< of its last submission
  struct Item {
    std::shared_ptr<Task> task;
    std::shared_ptr<EventPoint> record, wait;
    std::shared_ptr<GraphRun> graph;
  };
  std::deque<Item> queue;
  std::shared_ptr<Capture> capture;
  std::vector<int> capture_after;  ///< nodes that the next captured work comes after
  int branch = -1;
};

class Scheduler {
 public:
  Scheduler(Memory& memory, Monitor& monitor) : memory_(memory), monitor_(monitor) { reset(); }
  void reset();

  // Streams. `get` refuses stale handles, and the null, legacy and per-thread streams, which this project never uses.
  uint64_t create_stream(unsigned flags, int priority);
  Stream& get(uint64_t handle);
  void destroy_stream(uint64_t handle);
  /// Queues work, or adds it to the graph that the stream is capturing.
  void submit(Stream& stream, Work work);
  /// A copy or memset without a stream: ordered with blocking streams only. `host_waits`: the call returns when it is done.
  void submit_legacy(Work work, bool host_waits);
  void synchronize(Stream& stream);
  void synchronize_all();
  /// Runs a little; true if all work of the stream is done.
  bool query(Stream& stream);

  // Events.
  uint64_t create_event(unsigned flags);
  Event& event(uint64_t handle);
  void destroy_event(uint64_t handle);
  void record(Event& event, Stream& stream);
  void wait(Stream& stream, Event& event);
  void synchronize(Event& event);
  bool query(Event& event);

  // Capture and graphs.
  void begin_capture(Stream& stream, int mode);
  uint64_t end_capture(Stream& stream);
  /// Refuses a call that may synchronise or allocate while this thread captures (or any thread, in GLOBAL mode).
  void forbid_in_capture(const char* call);
  /// Refuses work that a capture cannot hold, and invalidates the capture.
  void forbid_capturing(Stream& stream, const std::string& why) {
    if (stream.capture) invalidate(*stream.capture, kCaptureUnsupported, why);
  }
  int exchange_capture_mode(int mode);
  uint64_t create_graph();
  std::shared_ptr<Graph> graph(uint64_t handle);
  void destroy_graph(uint64_t handle);
  uint64_t instantiate(uint64_t graph);
  std::shared_ptr<GraphExec> graph_exec(uint64_t handle);
  void destroy_graph_exec(uint64_t handle);
  void launch(uint64_t graph_exec, Stream& stream);

  /// Before memory goes: runs everything that is queued and reports work that may still use the block.
  void before_free(const Block& block, const char* call);
  /// The code that every call returns since a fault; 0 before one.
  int sticky() const { return sticky_; }
  const std::string& sticky_text() const { return sticky_text_; }
  size_t pending() const;

 private:
  [[noreturn]] void invalidate(Capture& capture, int code, const std::string& why);
  int new_lane() { return lane_count_++; }
  Clock next_clock(Stream& stream);
  /// Notes what the host must not touch from now on; `beside`: work that is queued together with it.
  void prepare(Task& task, const std::vector<const Work*>& beside);
  bool runnable(const Stream::Item& item) const;
  /// Streams that must move for `target` to become empty (or for `point` to complete).
  void needed(uint64_t stream, std::set<uint64_t>& result) const;
  std::set<uint64_t> blocking_streams() const;
  bool empty(const std::set<uint64_t>& streams) const;
  void advance(Stream& stream);
  /// Runs work until `done`, at random either only what `targets` need, or anything.
  void run_until(const std::set<uint64_t>& targets, const std::function<bool()>& done);
  bool run_one(const std::set<uint64_t>& targets, bool only_needed);
  void execute(const std::shared_ptr<Task>& task);
  void check_conflicts(const std::shared_ptr<Task>& task);
  void forget_finished();
  uint64_t random(uint64_t count);
  std::vector<const Work*> pending_works() const;

  Memory& memory_;
  Monitor& monitor_;
  std::map<uint64_t, std::unique_ptr<Stream>> streams_;
  std::map<uint64_t, std::unique_ptr<Event>> events_;
  std::map<uint64_t, std::shared_ptr<Graph>> graphs_;
  std::map<uint64_t, std::shared_ptr<GraphExec>> graph_execs_;
  std::map<uint64_t, std::weak_ptr<Capture>> captures_;
  std::map<std::thread::id, int> capture_modes_;
  std::vector<std::shared_ptr<Task>> unsettled_;  // ran, and the host has not waited for it
  Clock host_, legacy_;
  int lane_count_ = 1;  // lane 0: calls without a stream
  uint64_t next_handle_ = 1;
  std::mt19937_64 random_;
  int64_t seed_ = -1;
  int sticky_ = 0;
  std::string sticky_text_;
};

/// FNV-1a over 8-byte words.
uint64_t hash_bytes(const void* data, uint64_t bytes);

}  // namespace bireal::emulator
