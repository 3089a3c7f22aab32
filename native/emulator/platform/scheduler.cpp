#include "emulator/platform/scheduler.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace bireal::emulator {
namespace {

constexpr unsigned kNonBlocking = 1;  // CU_STREAM_NON_BLOCKING
constexpr int kModeGlobal = 0, kModeRelaxed = 2;

// Handles are numbers that are never used twice, so a stale one is recognised; the kind stands in the upper bits.
enum HandleKind : uint64_t { kStreamHandle = 0x51, kEventHandle = 0x52, kGraphHandle = 0x53, kGraphExecHandle = 0x54 };

uint64_t make_handle(HandleKind kind, uint64_t number) { return uint64_t(kind) << 40 | number << 4; }

std::string stream_text(uint64_t stream) {
  return stream == 0 ? "no stream" : "stream " + std::to_string((stream & 0xFFFFFFFFFF) >> 4);
}

uint64_t at(const Clock& clock, int lane) { return size_t(lane) < clock.size() ? clock[size_t(lane)] : 0; }

uint64_t& tick(Clock& clock, int lane) {
  if (clock.size() <= size_t(lane)) clock.resize(size_t(lane) + 1);
  return clock[size_t(lane)];
}

bool before(const Task& first, const Clock& clock) { return at(first.clock, first.lane) <= at(clock, first.lane); }

bool overlap(Range a, Range b) {
  return a.bytes > 0 && b.bytes > 0 && a.address < b.address + b.bytes && b.address < a.address + a.bytes;
}

void add_missing(std::vector<int>& into, const std::vector<int>& nodes) {
  for (int node : nodes)
    if (std::find(into.begin(), into.end(), node) == into.end()) into.push_back(node);
}

}  // namespace

void join(Clock& clock, const Clock& other) {
  if (clock.size() < other.size()) clock.resize(other.size());
  for (size_t i = 0; i < other.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

uint64_t hash_bytes(const void* data, uint64_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  constexpr uint64_t kPrime = 0x100000001b3ull;
  uint64_t hash[4] = {0xcbf29ce484222325ull, 1, 2, 3};  // four, as each multiplication waits for the one before
  for (; bytes >= 32; bytes -= 32, p += 32) {
    uint64_t words[4];
    std::memcpy(words, p, 32);
    for (int i = 0; i < 4; ++i) {
      hash[i] = (hash[i] ^ words[i]) * kPrime;
      hash[i] ^= hash[i] >> 29;
    }
  }
  for (; bytes > 0; --bytes, ++p) hash[0] = (hash[0] ^ *p) * kPrime;
  for (int i = 1; i < 4; ++i) {
    hash[0] = (hash[0] ^ hash[i]) * kPrime;
    hash[0] ^= hash[0] >> 29;
  }
  return hash[0];
}

std::string Task::text() const { return work->name + " (" + stream_text(stream) + (replay ? ", in a graph)" : ")"); }

// ---- Execution

Block& Execution::live(Range range, const char* what) {
  std::string why;
  Block* block = memory_.find_live(range, &why);
  if (block == nullptr) throw DeviceFault(kIllegalAddress, task_.text() + ": " + what + ": " + why);
  return *block;
}

void Execution::find(const std::string& text) { monitor_.find(task_.text() + ": " + text); }

void Execution::read(Range range, const char* what) {
  if (range.bytes == 0) return;
  Block& block = live(range, what);
  task_.touched.read(range);
  if (block.initialised.empty()) return;
  uint64_t offset = range.address - block.address;
  const void* hole = std::memchr(block.initialised.data() + offset, 0, range.bytes);
  if (hole == nullptr) return;
  offset = uint64_t(static_cast<const uint8_t*>(hole) - block.initialised.data());
  find("uninitialised read: " + std::string(what) + ": nobody wrote byte " + std::to_string(offset) + " of " + block.text());
}

void Execution::write(Range range, const char* what) {
  if (range.bytes == 0) return;
  Block& block = live(range, what);
  task_.touched.write(range);
  if (!block.initialised.empty()) std::memset(block.initialised.data() + (range.address - block.address), 1, range.bytes);
}

void Execution::copy(uint64_t target, uint64_t source, uint64_t bytes) {
  if (bytes == 0) return;
  Block& from = live({source, bytes}, "source");
  Block& to = live({target, bytes}, "target");
  task_.touched.read({source, bytes});
  task_.touched.write({target, bytes});
  std::memmove(reinterpret_cast<void*>(target), reinterpret_cast<void*>(source), bytes);
  if (to.initialised.empty()) return;
  uint8_t* shadow = to.initialised.data() + (target - to.address);
  if (from.initialised.empty())
    std::memset(shadow, 1, bytes);
  else
    std::memmove(shadow, from.initialised.data() + (source - from.address), bytes);
}

void Execution::scratch(Range range, const char* what) {
  if (range.bytes == 0) return;
  write(range, what);
  Block& block = live(range, what);
  std::memset(reinterpret_cast<void*>(range.address), 0xFF, range.bytes);
  if (!block.initialised.empty()) std::memset(block.initialised.data() + (range.address - block.address), 0, range.bytes);
}

// ---- Streams

void Scheduler::reset() {
  streams_.clear();
  events_.clear();
  graphs_.clear();
  graph_execs_.clear();
  captures_.clear();
  capture_modes_.clear();
  unsettled_.clear();
  host_.clear();
  legacy_.clear();
  lane_count_ = 1;
  seed_ = -1;
  sticky_ = 0;
  sticky_text_.clear();
}

uint64_t Scheduler::create_stream(unsigned flags, int priority) {
  auto stream = std::make_unique<Stream>();
  stream->handle = make_handle(kStreamHandle, next_handle_++);
  stream->flags = flags;
  stream->priority = priority;
  stream->lane = new_lane();
  uint64_t handle = stream->handle;
  streams_[handle] = std::move(stream);
  return handle;
}

Stream& Scheduler::get(uint64_t handle) {
  if (handle <= 2) {
    std::string which = handle == 0 ? "null" : handle == 1 ? "legacy" : "per-thread";
    monitor_.find("the " + which + " stream was used: work must name a stream that it created");
    throw Refused(kInvalidHandle, "the " + which + " stream is refused by this emulator; create a stream");
  }
  auto found = streams_.find(handle);
  if (found == streams_.end() || found->second->destroyed)
    throw Refused(kInvalidHandle, "no such stream: it was destroyed or is no stream");
  return *found->second;
}

void Scheduler::destroy_stream(uint64_t handle) {
  Stream& stream = get(handle);
  if (stream.capture) invalidate(*stream.capture, kCaptureUnsupported, "cuStreamDestroy of a capturing stream");
  stream.destroyed = true;
  if (stream.queue.empty()) streams_.erase(handle);
}

Clock Scheduler::next_clock(Stream& stream) {
  join(stream.clock, host_);
  if ((stream.flags & kNonBlocking) == 0) join(stream.clock, legacy_);
  ++tick(stream.clock, stream.lane);
  return stream.clock;
}

std::vector<const Work*> Scheduler::pending_works() const {
  std::vector<const Work*> works;
  for (const auto& [handle, stream] : streams_)
    for (const Stream::Item& item : stream->queue) {
      if (item.task) works.push_back(item.task->work.get());
      if (item.graph)
        for (size_t i = 0; i < item.graph->tasks.size(); ++i)
          if (!item.graph->done[i]) works.push_back(item.graph->tasks[i]->work.get());
    }
  return works;
}

size_t Scheduler::pending() const { return pending_works().size(); }

void Scheduler::prepare(Task& task, const std::vector<const Work*>& beside) {
  const Work& work = *task.work;
  if (work.pinned_source.bytes == 0 && work.pinned_target.bytes == 0) return;
  std::vector<const Work*> others = pending_works();
  others.insert(others.end(), beside.begin(), beside.end());
  bool source_will_change = false, target_in_use = false;
  for (const Work* other : others) {
    if (other == &work) continue;
    source_will_change |= overlap(work.pinned_source, other->pinned_target);
    target_in_use |= overlap(work.pinned_target, other->pinned_source) || overlap(work.pinned_target, other->pinned_target);
  }
  if (work.pinned_source.bytes > 0 && !source_will_change) {
    Block* block = memory_.find(work.pinned_source.address);
    task.watch_source = block != nullptr && !block->freed;
    if (task.watch_source) {
      task.source_hash = hash_bytes(reinterpret_cast<void*>(work.pinned_source.address), work.pinned_source.bytes);
      task.source_writes = block->device_writes;
    }
  }
  std::string why;
  if (work.pinned_target.bytes > 0 && !target_in_use && memory_.find_live(work.pinned_target, &why) != nullptr)
    std::memset(reinterpret_cast<void*>(work.pinned_target.address), 0xFF, work.pinned_target.bytes);
}

void Scheduler::submit(Stream& stream, Work work) {
  auto shared = std::make_shared<const Work>(std::move(work));
  if (stream.capture) {
    Capture& capture = *stream.capture;
    if (capture.invalid) throw Refused(kCaptureInvalidated, "the capture is invalid since: " + capture.why_invalid);
    capture.graph->nodes.push_back({shared, stream.capture_after, stream.branch});
    stream.capture_after = {int(capture.graph->nodes.size()) - 1};
    return;
  }
  auto task = std::make_shared<Task>();
  task->work = shared;
  task->stream = stream.handle;
  task->lane = stream.lane;
  task->clock = next_clock(stream);
  prepare(*task, {});
  stream.queue.emplace_back();
  stream.queue.back().task = std::move(task);
}

std::set<uint64_t> Scheduler::blocking_streams() const {
  std::set<uint64_t> result;
  for (const auto& [handle, stream] : streams_)
    if ((stream->flags & kNonBlocking) == 0) result.insert(handle);
  return result;
}

bool Scheduler::empty(const std::set<uint64_t>& streams) const {
  for (uint64_t handle : streams) {
    auto found = streams_.find(handle);
    if (found != streams_.end() && !found->second->queue.empty()) return false;
  }
  return true;
}

void Scheduler::submit_legacy(Work work, bool host_waits) {
  std::set<uint64_t> blocking = blocking_streams();
  for (uint64_t handle : blocking)
    if (streams_.at(handle)->capture)
      invalidate(*streams_.at(handle)->capture, kCaptureImplicit,
                 work.name + " would wait for a stream that is capturing; create it with CU_STREAM_NON_BLOCKING");
  run_until(blocking, [&] { return empty(blocking); });
  auto task = std::make_shared<Task>();
  task->work = std::make_shared<const Work>(std::move(work));
  join(legacy_, host_);
  for (uint64_t handle : blocking)
    if (streams_.count(handle) > 0) join(legacy_, streams_.at(handle)->clock);
  ++tick(legacy_, 0);
  task->clock = legacy_;
  if (sticky_ == 0) execute(task);
  if (host_waits) join(host_, legacy_);
  forget_finished();
}

// ---- Running

uint64_t Scheduler::random(uint64_t count) {
  if (seed_ != monitor_.get("seed")) {
    seed_ = monitor_.get("seed");
    random_.seed(uint64_t(seed_));
  }
  return count <= 1 ? 0 : random_() % count;
}

bool Scheduler::runnable(const Stream::Item& item) const {
  if (item.wait) return item.wait->complete;
  if (item.graph) return !item.graph->previous || item.graph->previous->left == 0;
  return true;
}

void Scheduler::needed(uint64_t handle, std::set<uint64_t>& result) const {
  auto found = streams_.find(handle);
  if (found == streams_.end() || found->second->queue.empty() || !result.insert(handle).second) return;
  for (const Stream::Item& item : found->second->queue) {
    if (item.wait && !item.wait->complete) needed(item.wait->stream, result);
    if (item.graph && item.graph->previous && item.graph->previous->left > 0) needed(item.graph->previous->stream, result);
  }
}

void Scheduler::advance(Stream& stream) {
  Stream::Item& item = stream.queue.front();
  if (item.task) {
    std::shared_ptr<Task> task = item.task;
    stream.queue.pop_front();
    execute(task);
    return;
  }
  if (item.record) {
    item.record->complete = true;
    item.record->time = std::chrono::steady_clock::now();
  }
  if (item.graph && item.graph->left > 0) {
    std::shared_ptr<GraphRun> run = item.graph;
    std::vector<size_t> ready;
    for (size_t i = 0; i < run->tasks.size(); ++i) {
      const std::vector<int>& after = run->exec->nodes[i].after;
      if (!run->done[i] && std::all_of(after.begin(), after.end(), [&](int node) { return bool(run->done[size_t(node)]); }))
        ready.push_back(i);
    }
    size_t node = ready[random(ready.size())];
    run->done[node] = true;
    --run->left;
    if (run->left == 0) stream.queue.pop_front();
    execute(run->tasks[node]);
    return;
  }
  stream.queue.pop_front();
}

bool Scheduler::run_one(const std::set<uint64_t>& targets, bool only_needed) {
  std::set<uint64_t> wanted;
  for (uint64_t target : targets) needed(target, wanted);
  std::vector<Stream*> candidates;
  for (const auto& [handle, stream] : streams_)
    if (!stream->queue.empty() && (!only_needed || wanted.count(handle) > 0) && runnable(stream->queue.front()))
      candidates.push_back(stream.get());
  if (candidates.empty()) return false;
  Stream* chosen = candidates[random(candidates.size())];
  advance(*chosen);
  if (sticky_ != 0)
    for (const auto& [handle, stream] : streams_) stream->queue.clear();
  else if (chosen->destroyed && chosen->queue.empty())
    streams_.erase(chosen->handle);
  return true;
}

void Scheduler::run_until(const std::set<uint64_t>& targets, const std::function<bool()>& done) {
  bool only_needed = random(2) == 0;
  while (sticky_ == 0 && !done())
    if (!run_one(targets, only_needed)) {
      monitor_.find("deadlock: streams wait for events that can never complete");
      return;
    }
}

void Scheduler::synchronize(Stream& stream) {
  if (stream.capture) invalidate(*stream.capture, kCaptureUnsupported, "synchronisation with a capturing stream");
  Clock clock = stream.clock;
  run_until({stream.handle}, [&] { return stream.queue.empty(); });
  join(host_, clock);
  forget_finished();
}

void Scheduler::synchronize_all() {
  std::set<uint64_t> all;
  for (const auto& [handle, stream] : streams_) {
    if (stream->capture) invalidate(*stream->capture, kCaptureUnsupported, "synchronisation of the context during a capture");
    all.insert(handle);
  }
  Clock clock = legacy_;
  for (const auto& [handle, stream] : streams_) join(clock, stream->clock);
  run_until(all, [&] { return empty(all); });
  join(host_, clock);
  forget_finished();
}

bool Scheduler::query(Stream& stream) {
  if (stream.capture) invalidate(*stream.capture, kCaptureUnsupported, "query of a capturing stream");
  uint64_t handle = stream.handle;
  // Some progress at each call, so that a polling loop ends; how much is up to the seed.
  for (uint64_t steps = 1 + random(4); steps > 0 && !empty({handle}); --steps) run_one({handle}, true);
  if (!empty({handle})) return false;
  join(host_, stream.clock);
  forget_finished();
  return true;
}

void Scheduler::execute(const std::shared_ptr<Task>& task) {
  Record& record = monitor_.add_record();
  bireal_emulator_record& values = record.values;
  std::snprintf(values.name, sizeof values.name, "%s", task->work->name.c_str());
  values.kind = task->work->kind;
  values.stream = task->stream;
  values.replay = task->replay;
  Execution execution(memory_, monitor_, *task, record);
  try {
    bool launch = values.kind == BIREAL_EMULATOR_KERNEL || values.kind == BIREAL_EMULATOR_LIBRARY;
    if (launch && monitor_.launch_fails()) {
      sticky_ = int(monitor_.get("fail_launch_code"));
      sticky_text_ = "injected fault in " + task->text();
      return;
    }
    if (task->watch_source) {
      const Range& source = task->work->pinned_source;
      Block* block = memory_.find(source.address);
      if (block != nullptr && !block->freed && block->device_writes == task->source_writes &&
          hash_bytes(reinterpret_cast<void*>(source.address), source.bytes) != task->source_hash)
        execution.find("the host changed " + block->text() + " before the copy that was queued had read it");
    }
    task->work->run(execution);
  } catch (const DeviceFault& fault) {
    monitor_.find(fault.what());
    sticky_ = fault.code();
    sticky_text_ = fault.what();
  }
  task->touched.normalise();
  uint64_t read_bytes = 0, write_bytes = 0;
  for (const Range& range : task->touched.reads()) read_bytes += range.bytes;
  for (const Range& range : task->touched.writes()) {
    write_bytes += range.bytes;
    Block* block = memory_.find(range.address);
    if (block != nullptr && block->host()) ++block->device_writes;
  }
  if (values.kind != BIREAL_EMULATOR_KERNEL) {
    values.read.bytes = read_bytes;
    values.read.sectors_distinct = (read_bytes + 31) / 32;
    values.write.bytes = write_bytes;
    values.write.sectors_distinct = (write_bytes + 31) / 32;
  }
  check_conflicts(task);
  if (!before(*task, host_)) unsettled_.push_back(task);
}

void Scheduler::check_conflicts(const std::shared_ptr<Task>& task) {
  for (const std::shared_ptr<Task>& other : unsettled_) {
    // Neither was waited for by the other. `other` ran earlier, so only its order before `task` can be known.
    if (before(*other, task->clock)) continue;
    AccessSet::Conflict conflict = AccessSet::conflict(other->touched, task->touched);
    if (conflict.range.bytes == 0) continue;
    Block* block = memory_.find(conflict.range.address);
    std::string place =
        block == nullptr ? "" : " at byte " + std::to_string(conflict.range.address - block->address) + " of " + block->text();
    std::string advice =
        other->stream == 0 || task->stream == 0
            ? "; a call without a stream is not ordered with CU_STREAM_NON_BLOCKING streams: copy on the stream, or "
              "synchronise between them"
            : "; an event wait or a synchronisation is missing between them";
    monitor_.find("conflict: " + other->text() + (conflict.first_writes ? " writes" : " reads") + " and " + task->text() +
                  (conflict.second_writes ? " writes " : " reads ") + std::to_string(conflict.range.bytes) + " bytes" + place +
                  advice);
  }
}

void Scheduler::forget_finished() {
  // Work may be forgotten once the host and everything still queued come after it.
  Clock floor = host_;
  auto lower = [&](const Clock& clock) {
    for (size_t lane = 0; lane < floor.size(); ++lane) floor[lane] = std::min(floor[lane], at(clock, int(lane)));
  };
  for (const auto& [handle, stream] : streams_)
    for (const Stream::Item& item : stream->queue) {
      if (item.task) lower(item.task->clock);
      if (item.graph)
        for (size_t i = 0; i < item.graph->tasks.size(); ++i)
          if (!item.graph->done[i]) lower(item.graph->tasks[i]->clock);
    }
  unsettled_.erase(std::remove_if(unsettled_.begin(), unsettled_.end(),
                                  [&](const std::shared_ptr<Task>& task) { return before(*task, floor); }),
                   unsettled_.end());
}

void Scheduler::before_free(const Block& block, const char* call) {
  std::set<uint64_t> all;
  for (const auto& [handle, stream] : streams_) all.insert(handle);
  run_until(all, [&] { return empty(all); });
  for (const std::shared_ptr<Task>& task : unsettled_)
    if (!before(*task, host_) && task->touched.touches({block.address, block.bytes}))
      monitor_.find(std::string(call) + " of " + block.text() + " while " + task->text() +
                    " may still use it: synchronise with its stream first");
}

// ---- Events

uint64_t Scheduler::create_event(unsigned flags) {
  uint64_t handle = make_handle(kEventHandle, next_handle_++);
  events_[handle] = std::make_unique<Event>();
  events_[handle]->flags = flags;
  return handle;
}

Event& Scheduler::event(uint64_t handle) {
  auto found = events_.find(handle);
  if (found == events_.end()) throw Refused(kInvalidHandle, "no such event: it was destroyed or is no event");
  return *found->second;
}

void Scheduler::destroy_event(uint64_t handle) {
  event(handle);
  events_.erase(handle);
}

void Scheduler::record(Event& event, Stream& stream) {
  if (stream.capture) {
    if (stream.capture->invalid)
      throw Refused(kCaptureInvalidated, "the capture is invalid since: " + stream.capture->why_invalid);
    event.captured = true;
    event.capture = stream.capture;
    event.captured_after = stream.capture_after;
    return;
  }
  event.captured = false;
  event.point = std::make_shared<EventPoint>();
  event.point->stream = stream.handle;
  join(stream.clock, host_);
  if ((stream.flags & kNonBlocking) == 0) join(stream.clock, legacy_);
  event.point->clock = stream.clock;
  stream.queue.emplace_back();
  stream.queue.back().record = event.point;
}

void Scheduler::wait(Stream& stream, Event& event) {
  if (event.captured) {
    std::shared_ptr<Capture> capture = event.capture.lock();
    if (!capture) throw Refused(kCapturedEvent, "the event was last recorded in a capture that is over; record it again");
    if (capture->invalid) throw Refused(kCaptureInvalidated, "the capture is invalid since: " + capture->why_invalid);
    if (!stream.capture) {
      stream.capture = capture;
      stream.capture_after = event.captured_after;
      stream.branch = capture->graph->branch_count++;
      capture->streams.insert(stream.handle);
    } else if (stream.capture == capture) {
      add_missing(stream.capture_after, event.captured_after);
    } else {
      invalidate(*stream.capture, kCaptureMerge, "a wait would merge two captures");
    }
    return;
  }
  if (!event.point) return;  // never recorded: nothing to wait for
  if (stream.capture)
    invalidate(*stream.capture, kCaptureIsolation, "a capturing stream waits for an event that was recorded outside the capture");
  join(stream.clock, event.point->clock);
  stream.queue.emplace_back();
  stream.queue.back().wait = event.point;
}

void Scheduler::synchronize(Event& event) {
  if (event.captured) {
    if (std::shared_ptr<Capture> capture = event.capture.lock())
      invalidate(*capture, kCapturedEvent, "synchronisation with an event of a capture");
    throw Refused(kCapturedEvent, "the event was last recorded in a capture");
  }
  std::shared_ptr<EventPoint> point = event.point;
  if (!point) return;
  run_until({point->stream}, [&] { return point->complete; });
  join(host_, point->clock);
  forget_finished();
}

bool Scheduler::query(Event& event) {
  if (event.captured) {
    if (std::shared_ptr<Capture> capture = event.capture.lock())
      invalidate(*capture, kCapturedEvent, "query of an event of a capture");
    throw Refused(kCapturedEvent, "the event was last recorded in a capture");
  }
  std::shared_ptr<EventPoint> point = event.point;
  if (!point) return true;
  for (uint64_t steps = 1 + random(4); steps > 0 && !point->complete; --steps) run_one({point->stream}, true);
  if (!point->complete) return false;
  join(host_, point->clock);
  forget_finished();
  return true;
}

// ---- Capture and graphs

void Scheduler::invalidate(Capture& capture, int code, const std::string& why) {
  if (!capture.invalid) capture.why_invalid = why;
  capture.invalid = true;
  throw Refused(code, why + "; the capture is now invalid");
}

void Scheduler::begin_capture(Stream& stream, int mode) {
  if (mode < 0 || mode > 2) throw Refused(kInvalidValue, "capture mode " + std::to_string(mode) + " is none of 0, 1, 2");
  if (stream.capture) throw Refused(kIllegalState, "the stream is capturing already");
  auto capture = std::make_shared<Capture>();
  capture->id = next_handle_++;
  capture->origin = stream.handle;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->graph = std::make_shared<Graph>();
  capture->streams = {stream.handle};
  captures_[capture->id] = capture;
  stream.capture = capture;
  stream.capture_after.clear();
  stream.branch = capture->graph->branch_count++;
}

uint64_t Scheduler::end_capture(Stream& stream) {
  std::shared_ptr<Capture> capture = stream.capture;
  if (!capture) throw Refused(kIllegalState, "the stream is not capturing");
  if (capture->origin != stream.handle)
    invalidate(*capture, kCaptureUnmatched, "cuStreamEndCapture on a stream that did not begin the capture");
  if (capture->mode != kModeRelaxed && capture->thread != std::this_thread::get_id())
    throw Refused(kCaptureWrongThread, "cuStreamEndCapture from another thread than the one that began the capture");
  std::vector<int> joined = stream.capture_after;
  for (uint64_t handle : capture->streams) {
    auto member = streams_.find(handle);
    if (member == streams_.end()) continue;
    member->second->capture.reset();
    member->second->capture_after.clear();
  }
  captures_.erase(capture->id);
  if (capture->invalid) throw Refused(kCaptureInvalidated, "the capture is invalid since: " + capture->why_invalid);
  std::vector<bool> followed(capture->graph->nodes.size());
  for (const Graph::Node& node : capture->graph->nodes)
    for (int before_it : node.after) followed[size_t(before_it)] = true;
  for (int node : joined) followed[size_t(node)] = true;
  for (size_t i = 0; i < followed.size(); ++i)
    if (!followed[i])
      throw Refused(kCaptureUnjoined, "the capture ends before the origin stream waits for " +
                                          capture->graph->nodes[i].work->name + " on a forked stream");
  uint64_t handle = make_handle(kGraphHandle, next_handle_++);
  graphs_[handle] = capture->graph;
  return handle;
}

void Scheduler::forbid_in_capture(const char* call) {
  std::thread::id self = std::this_thread::get_id();
  int own_mode = capture_modes_.count(self) > 0 ? capture_modes_[self] : kModeGlobal;
  if (own_mode == kModeRelaxed) return;
  for (const auto& [id, weak] : captures_) {
    std::shared_ptr<Capture> capture = weak.lock();
    if (!capture || capture->mode == kModeRelaxed) continue;
    bool own = capture->thread == self;
    bool other_global = capture->mode == kModeGlobal && own_mode == kModeGlobal;
    if (own || other_global) invalidate(*capture, kCaptureUnsupported, std::string(call) + " is not permitted during a capture");
  }
}

int Scheduler::exchange_capture_mode(int mode) {
  if (mode < 0 || mode > 2) throw Refused(kInvalidValue, "capture mode " + std::to_string(mode) + " is none of 0, 1, 2");
  int& own = capture_modes_[std::this_thread::get_id()];
  std::swap(own, mode);
  return mode;
}

uint64_t Scheduler::create_graph() {
  uint64_t handle = make_handle(kGraphHandle, next_handle_++);
  graphs_[handle] = std::make_shared<Graph>();
  return handle;
}

std::shared_ptr<Graph> Scheduler::graph(uint64_t handle) {
  auto found = graphs_.find(handle);
  if (found == graphs_.end()) throw Refused(kInvalidValue, "no such graph: it was destroyed or is no graph");
  return found->second;
}

void Scheduler::destroy_graph(uint64_t handle) {
  graph(handle);
  graphs_.erase(handle);
}

uint64_t Scheduler::instantiate(uint64_t handle) {
  std::shared_ptr<Graph> source = graph(handle);
  auto exec = std::make_shared<GraphExec>();
  exec->nodes = source->nodes;
  for (int branch = 0; branch < source->branch_count; ++branch) exec->lanes.push_back(new_lane());
  uint64_t result = make_handle(kGraphExecHandle, next_handle_++);
  graph_execs_[result] = std::move(exec);
  return result;
}

std::shared_ptr<GraphExec> Scheduler::graph_exec(uint64_t handle) {
  auto found = graph_execs_.find(handle);
  if (found == graph_execs_.end()) throw Refused(kInvalidValue, "no such executable graph: it was destroyed or is none");
  return found->second;
}

void Scheduler::destroy_graph_exec(uint64_t handle) {
  graph_exec(handle);
  graph_execs_.erase(handle);
}

void Scheduler::launch(uint64_t handle, Stream& stream) {
  std::shared_ptr<GraphExec> exec = graph_exec(handle);
  if (stream.capture) throw Refused(kNotSupported, "a graph launched into a capture (child graph) is not emulated");
  auto run = std::make_shared<GraphRun>();
  run->exec = exec;
  run->stream = stream.handle;
  run->previous = exec->last_run && exec->last_run->left > 0 ? exec->last_run : nullptr;
  run->left = exec->nodes.size();
  run->done.assign(exec->nodes.size(), false);
  Clock base = next_clock(stream);
  join(base, exec->last);
  Clock end = base;
  std::vector<const Work*> works;
  for (const Graph::Node& node : exec->nodes) works.push_back(node.work.get());
  for (const Graph::Node& node : exec->nodes) {
    auto task = std::make_shared<Task>();
    task->work = node.work;
    task->stream = stream.handle;
    task->replay = true;
    task->lane = exec->lanes[size_t(node.branch)];
    task->clock = base;
    for (int before_it : node.after) join(task->clock, run->tasks[size_t(before_it)]->clock);
    tick(task->clock, task->lane) = at(end, task->lane) + 1;
    join(end, task->clock);
    prepare(*task, works);
    run->tasks.push_back(std::move(task));
  }
  join(stream.clock, end);
  exec->last = stream.clock;
  exec->last_run = run;
  if (run->left == 0) return;
  stream.queue.emplace_back();
  stream.queue.back().graph = std::move(run);
}

}  // namespace bireal::emulator
