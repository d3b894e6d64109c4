// What a launch costs the host, without Python: a program's calls at one shape, laid out once and queued by one call.
//
// Nothing is linked against: the driver's entry points are looked up in the library that open() is told, when it is told.
// Its structures are declared here as the CUDA driver API documents them (CUDA 12 and later).

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <cstring>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#if defined(_WIN32)
#error "the launcher looks the driver up by dlopen"
#endif
#include <dlfcn.h>

namespace py = pybind11;

namespace {

using Result = int;
using Handle = void*;

struct Attribute {  // CUlaunchAttribute
  int id;
  char pad[8 - sizeof(int)];
  union {
    char bytes[64];
    unsigned words[3];
  } value;
};
static_assert(sizeof(Attribute) == 72, "CUlaunchAttribute is 8 bytes and a value of 64");

struct Config {  // CUlaunchConfig
  unsigned grid[3], block[3], shared_bytes;
  Handle stream;
  Attribute* attributes;
  unsigned attribute_count;
};

struct Driver {
  Result (*launch)(const Config*, Handle function, void** arguments, void** extra);
  Result (*current)(Handle* context);
  Result (*set_current)(Handle context);
  Result (*push)(Handle context);
  Result (*pop)(Handle* context);
  Result (*fill)(std::uint64_t address, unsigned char byte, std::size_t size, Handle stream);
  Result (*create_stream)(Handle* stream, unsigned flags);
  Result (*destroy_stream)(Handle stream);
  Result (*create_event)(Handle* event, unsigned flags);
  Result (*destroy_event)(Handle event);
  Result (*record)(Handle event, Handle stream);
  Result (*wait)(Handle stream, Handle event, unsigned flags);
};

Driver driver;
bool opened = false;

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

// Whether the driver is there and has all that is needed.
bool open(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return false;
  Driver found{};
  opened = find(library, "cuLaunchKernelEx", found.launch) && find(library, "cuCtxGetCurrent", found.current) &&
           find(library, "cuCtxSetCurrent", found.set_current) &&
           find(library, "cuCtxPushCurrent_v2", found.push) && find(library, "cuCtxPopCurrent_v2", found.pop) &&
           find(library, "cuMemsetD8Async", found.fill) && find(library, "cuStreamCreate", found.create_stream) &&
           find(library, "cuStreamDestroy_v2", found.destroy_stream) &&
           find(library, "cuEventCreate", found.create_event) &&
           find(library, "cuEventDestroy_v2", found.destroy_event) && find(library, "cuEventRecord", found.record) &&
           find(library, "cuStreamWaitEvent", found.wait);
  if (opened) driver = found;
  return opened;
}

constexpr int most_arguments = 64;
constexpr unsigned non_blocking = 1, without_timing = 2;  // CU_STREAM_NON_BLOCKING, CU_EVENT_DISABLE_TIMING
constexpr std::uint64_t poison = 0xFF;

// An array that lies inside another one, or in the memory of a run.
struct Part {
  int base;  // the slot of an array that is given; -1: the memory
  std::uint64_t offset;
};

// An argument: the address in a slot of those that a run is given, or a constant of the launch's own.
struct Argument {
  int slot;  // -1 for a constant
  std::uint64_t constant;
};

// cublasLtMatmul, as the library's header declares it.
using Multiply = Result (*)(Handle handle, Handle operation, const void* alpha, const void* left, Handle left_layout,
                            const void* right, Handle right_layout, const void* beta, const void* there, Handle there_layout,
                            void* out, Handle out_layout, const void* algorithm, void* workspace, std::size_t workspace_bytes,
                            Handle stream);

// cublasLtMatmulDescSetAttribute.
using Set = Result (*)(Handle operation, int attribute, const void* value, std::size_t size);
constexpr int bias_pointer = 8;  // CUBLASLT_MATMUL_DESC_BIAS_POINTER

// A product that a library makes: what does not change from run to run. Who made it keeps what the handles mean.
struct Product {
  Multiply multiply = nullptr;  // null: the call is a kernel's
  Set set = nullptr;            // null: there is no bias
  Handle handle, operation, layouts[3];  // left, right, out
  const void *alpha, *beta, *algorithm;
  std::size_t workspace_bytes;
  // Slot and offset of left, right, out, the workspace and a bias; a slot of -1 is a null pointer.
  std::pair<int, std::uint64_t> arrays[5];
};

struct Call {
  Handle function;
  Product product;
  Config config;
  std::vector<Attribute> attributes;
  std::vector<Argument> arguments;
  int lane;
  std::vector<int> after;  // earlier calls in other lanes that must have ended
  bool awaited = false;    // whether a later one has this one there
};

struct Fill {
  int slot;
  std::size_t size;
};

class Queue {
 public:
  // given: how many arrays a run is given. parts: further ones, each (slot, offset) in one of these, or (-1, offset) in the
  // memory that allocate() makes for every run, an object with data_ptr(). stream(device): the raw stream to queue on.
  // refuse(code, call): raises for the driver's code, and which call it is of (-1: none of the launches).
  Queue(std::uint64_t context, int given, const std::vector<std::pair<int, std::uint64_t>>& parts, py::object allocate,
        py::object stream, py::object device, py::object refuse)
      : context_(reinterpret_cast<Handle>(context)),
        given_(given),
        slots_(given + static_cast<int>(parts.size())),
        allocate_(std::move(allocate)),
        stream_(std::move(stream)),
        device_(std::move(device)),
        refuse_(std::move(refuse)) {
    if (!opened) throw std::runtime_error("the driver has not been opened");
    if (given < 0) throw std::length_error("fewer arrays than none");
    for (const auto& [base, offset] : parts) {
      if (base >= given) throw std::out_of_range("a part of no array");
      parts_.push_back({base, offset});
      allocates_ = allocates_ || base < 0;
    }
  }

  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  // What is still queued runs all the same; and where the process ends the driver may be gone already, and says so.
  ~Queue() {
    for (const Handle one : streams_) driver.destroy_stream(one);
    for (const Handle one : events_) driver.destroy_event(one);
  }

  void fill(int slot, std::size_t size) { fills_.push_back({require_slot(slot), size}); }

  void call(std::uint64_t function, std::tuple<unsigned, unsigned, unsigned> grid, unsigned block, unsigned shared_bytes,
            const std::vector<std::tuple<int, unsigned, unsigned, unsigned>>& attributes,
            const std::vector<std::pair<int, std::int64_t>>& arguments, int lane, const std::vector<int>& after) {
    if (arguments.size() > most_arguments) throw std::length_error("too many arguments");
    Call made = in_lane(lane, after);
    made.function = reinterpret_cast<Handle>(function);
    made.config.grid[0] = std::get<0>(grid);
    made.config.grid[1] = std::get<1>(grid);
    made.config.grid[2] = std::get<2>(grid);
    made.config.block[0] = block;
    made.config.block[1] = made.config.block[2] = 1;
    made.config.shared_bytes = shared_bytes;
    for (const auto& [id, x, y, z] : attributes) {
      Attribute attribute{};
      attribute.id = id;
      attribute.value.words[0] = x;
      attribute.value.words[1] = y;
      attribute.value.words[2] = z;
      made.attributes.push_back(attribute);
    }
    for (const auto& [slot, constant] : arguments) {
      made.arguments.push_back({slot < 0 ? -1 : require_slot(slot), static_cast<std::uint64_t>(constant)});
    }
    calls_.push_back(std::move(made));
  }

  // A product of a library's: its function, that which sets the bias (0 where there is none), and what Product has.
  void product(std::uint64_t function, std::uint64_t set, std::uint64_t handle, std::uint64_t operation,
               std::tuple<std::uint64_t, std::uint64_t, std::uint64_t> layouts, std::pair<std::uint64_t, std::uint64_t> scales,
               std::uint64_t algorithm, std::size_t workspace_bytes, const std::vector<std::pair<int, std::uint64_t>>& arrays,
               int lane, const std::vector<int>& after) {
    if (function == 0) throw std::invalid_argument("no function multiplies");
    if (arrays.size() != 5) throw std::length_error("a product has two factors, a result, a workspace and a bias");
    Call made = in_lane(lane, after);
    Product& it = made.product;
    it.multiply = reinterpret_cast<Multiply>(function);
    it.set = reinterpret_cast<Set>(set);
    it.handle = reinterpret_cast<Handle>(handle);
    it.operation = reinterpret_cast<Handle>(operation);
    it.layouts[0] = reinterpret_cast<Handle>(std::get<0>(layouts));
    it.layouts[1] = reinterpret_cast<Handle>(std::get<1>(layouts));
    it.layouts[2] = reinterpret_cast<Handle>(std::get<2>(layouts));
    it.alpha = reinterpret_cast<const void*>(scales.first);
    it.beta = reinterpret_cast<const void*>(scales.second);
    it.algorithm = reinterpret_cast<const void*>(algorithm);
    it.workspace_bytes = workspace_bytes;
    for (int at = 0; at < 5; ++at) {
      const int slot = arrays[at].first;
      it.arrays[at] = {slot == -1 ? -1 : require_slot(slot), arrays[at].second};
    }
    calls_.push_back(std::move(made));
  }

  // Queue all. arrays: for each that is given an address, None for a null pointer, or what has data_ptr().
  void run(py::handle arrays) {
    std::vector<std::uint64_t> addresses(slots_);
    read(arrays, addresses.data());
    py::object memory;  // lives until all is queued: who frees it on the stream frees it after
    std::uint64_t begin = 0;
    if (allocates_) {
      memory = allocate_();
      begin = address_of(memory.ptr());
    }
    for (std::size_t at = 0; at < parts_.size(); ++at) {
      const Part& part = parts_[at];
      const std::uint64_t base = part.base < 0 ? begin : addresses[part.base];
      addresses[given_ + at] = base == 0 ? 0 : base + part.offset;  // a part of a null pointer is one
    }
    const py::object stream = py::reinterpret_steal<py::object>(PyObject_CallOneArg(stream_.ptr(), device_.ptr()));
    if (!stream) throw py::error_already_set();
    const auto handle = reinterpret_cast<Handle>(PyLong_AsUnsignedLongLong(stream.ptr()));
    if (PyErr_Occurred()) throw py::error_already_set();
    std::pair<int, int> outcome;
    {
      py::gil_scoped_release released;
      outcome = queue(handle, addresses.data());
    }
    if (outcome.first) refuse_(outcome.first, outcome.second);
  }

 private:
  // A call's beginning: where it runs, and after which others.
  Call in_lane(int lane, const std::vector<int>& after) {
    if (lane < 0) throw std::out_of_range("lanes are counted from 0");
    Call made{};
    made.lane = lane;
    for (const int earlier : after) {
      Call& awaited = calls_.at(earlier);
      if (awaited.lane == lane) continue;  // the lane's order sees to it
      awaited.awaited = true;
      made.after.push_back(earlier);
    }
    lanes_ = lane < lanes_ ? lanes_ : lane + 1;
    return made;
  }

  static Result multiply(const Product& it, const std::uint64_t* addresses, Handle stream) {
    void* at[5];
    for (int array = 0; array < 5; ++array) {
      const auto [slot, offset] = it.arrays[array];
      at[array] = slot < 0 ? nullptr : reinterpret_cast<void*>(addresses[slot] + offset);
    }
    static std::mutex operations;  // an operation, which queues share, has one bias at a time
    std::unique_lock<std::mutex> alone;
    if (it.set != nullptr) {
      alone = std::unique_lock<std::mutex>(operations);
      if (const Result code = it.set(it.operation, bias_pointer, &at[4], sizeof at[4])) return code;
    }
    return it.multiply(it.handle, it.operation, it.alpha, at[0], it.layouts[0], at[1], it.layouts[1], it.beta, at[2],
                       it.layouts[2], at[2], it.layouts[2], it.algorithm, at[3], it.workspace_bytes, stream);
  }

  int require_slot(int slot) const {
    if (slot < 0 || slot >= slots_) throw std::out_of_range("an argument without an array");
    return slot;
  }

  static std::uint64_t address_of(PyObject* item) {
    static PyObject* const data_ptr = PyUnicode_InternFromString("data_ptr");
    if (item == Py_None) return 0;
    std::uint64_t address;
    if (PyLong_Check(item)) {
      address = PyLong_AsUnsignedLongLong(item);
    } else {
      const py::object found = py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(item, data_ptr));
      if (!found) throw py::error_already_set();
      address = PyLong_AsUnsignedLongLong(found.ptr());
    }
    if (PyErr_Occurred()) throw py::error_already_set();
    return address;
  }

  void read(py::handle arrays, std::uint64_t* addresses) const {
    const py::object items = py::reinterpret_steal<py::object>(PySequence_Fast(arrays.ptr(), "arrays must be a sequence"));
    if (!items) throw py::error_already_set();
    if (PySequence_Fast_GET_SIZE(items.ptr()) != given_) throw std::length_error("another number of arrays");
    for (int slot = 0; slot < given_; ++slot) addresses[slot] = address_of(PySequence_Fast_GET_ITEM(items.ptr(), slot));
  }

  // In the GPU's context: a thread that has none keeps it, as it does from its first launch through CUDA's runtime.
  std::pair<int, int> queue(Handle stream, std::uint64_t* addresses) {
    Handle found = nullptr;
    if (const Result code = driver.current(&found)) return {code, -1};
    if (found == context_) return start(stream, addresses);
    if (found == nullptr) {
      if (const Result code = driver.set_current(context_)) return {code, -1};
      return start(stream, addresses);
    }
    if (const Result code = driver.push(context_)) return {code, -1};
    const auto outcome = start(stream, addresses);
    driver.pop(&found);
    return outcome;
  }

  // The first lane is the stream of the run, the others are streams of the queue's own. They begin when what is on that
  // stream has ended, and what comes on it later waits for all of them: a graph that is captured has them as branches.
  std::pair<int, int> start(Handle stream, std::uint64_t* addresses) {
    if (lanes_ == 1) return start_in({stream}, addresses);
    const std::lock_guard<std::mutex> alone(mutex_);  // an event means its last record
    while (static_cast<int>(streams_.size()) < lanes_ - 1) {
      Handle made = nullptr;
      if (const Result code = driver.create_stream(&made, non_blocking)) return {code, -1};
      streams_.push_back(made);
    }
    while (events_.size() < calls_.size() + lanes_) {
      Handle made = nullptr;
      if (const Result code = driver.create_event(&made, without_timing)) return {code, -1};
      events_.push_back(made);
    }
    std::vector<Handle> lanes{stream};
    lanes.insert(lanes.end(), streams_.begin(), streams_.end());
    Handle* const ends = events_.data() + calls_.size();  // of the lanes
    if (const Result code = driver.record(ends[0], stream)) return {code, -1};
    for (int lane = 1; lane < lanes_; ++lane)
      if (const Result code = driver.wait(lanes[lane], ends[0], 0)) return {code, -1};
    const auto outcome = start_in(lanes, addresses);
    for (int lane = 1; lane < lanes_; ++lane) {
      if (const Result code = driver.record(ends[lane], lanes[lane])) return {code, -1};
      if (const Result code = driver.wait(stream, ends[lane], 0)) return {code, -1};
    }
    return outcome;
  }

  std::pair<int, int> start_in(const std::vector<Handle>& lanes, std::uint64_t* addresses) const {
    const Handle stream = lanes[0];
    for (const Fill& one : fills_) {
      if (const Result code = driver.fill(addresses[one.slot], poison, one.size, stream)) return {code, -1};
    }
    for (std::size_t index = 0; index < calls_.size(); ++index) {
      const Call& call = calls_[index];
      const int place = static_cast<int>(index);
      for (const int earlier : call.after)
        if (const Result code = driver.wait(lanes[call.lane], events_[earlier], 0)) return {code, place};
      if (const Result code = call.product.multiply ? multiply(call.product, addresses, lanes[call.lane])
                                                    : launch(call, addresses, lanes[call.lane]))
        return {code, place};
      if (call.awaited)
        if (const Result code = driver.record(events_[index], lanes[call.lane])) return {code, place};
    }
    return {0, 0};
  }

  static Result launch(const Call& call, std::uint64_t* addresses, Handle stream) {
    void* pointers[most_arguments];
    for (std::size_t at = 0; at < call.arguments.size(); ++at) {
      const Argument& argument = call.arguments[at];
      // An int32 is read from the first four bytes of its constant: GPUs' hosts are little-endian.
      pointers[at] = argument.slot < 0 ? const_cast<std::uint64_t*>(&argument.constant) : &addresses[argument.slot];
    }
    Config config = call.config;
    config.stream = stream;
    config.attributes = const_cast<Attribute*>(call.attributes.data());
    config.attribute_count = static_cast<unsigned>(call.attributes.size());
    return driver.launch(&config, call.function, pointers, nullptr);
  }

  Handle context_;
  int given_, slots_;
  bool allocates_ = false;
  std::vector<Part> parts_;
  py::object allocate_, stream_, device_, refuse_;
  std::vector<Fill> fills_;
  std::vector<Call> calls_;
  int lanes_ = 1;
  std::mutex mutex_;
  std::vector<Handle> streams_;  // of the lanes but the first, from the first run on
  std::vector<Handle> events_;   // the end of each call that is awaited, and of each lane
};

}  // namespace

PYBIND11_MODULE(_launcher_native, module) {
  module.doc() = "Launches through the CUDA driver, laid out once.";
  module.attr("SOURCES") = LAUNCHER_SOURCES;
  module.attr("MOST_ARGUMENTS") = most_arguments;
  module.def("open", &open, py::arg("path"), "Look the driver up in a library; whether it is there.");
  py::class_<Queue>(module, "Queue", "A program's calls at one shape on one GPU.")
      .def(py::init<std::uint64_t, int, const std::vector<std::pair<int, std::uint64_t>>&, py::object, py::object,
                    py::object, py::object>(),
           py::arg("context"), py::arg("given"), py::arg("parts"), py::arg("allocate"), py::arg("stream"),
           py::arg("device"), py::arg("refuse"))
      .def("fill", &Queue::fill, py::arg("slot"), py::arg("size"), "Before the calls, fill an array with 0xFF.")
      .def("call", &Queue::call, py::arg("function"), py::arg("grid"), py::arg("block"), py::arg("shared_bytes"),
           py::arg("attributes"), py::arg("arguments"), py::arg("lane"), py::arg("after"),
           "Add a call; an argument is (slot, 0) or (-1, constant). It runs beside those in other lanes, but after some "
           "of the earlier calls.")
      .def("product", &Queue::product, py::arg("function"), py::arg("set"), py::arg("handle"), py::arg("operation"), py::arg("layouts"),
           py::arg("scales"), py::arg("algorithm"), py::arg("workspace_bytes"), py::arg("arrays"), py::arg("lane"),
           py::arg("after"), "Add a library's product; an array is (slot, offset), with a slot of -1 a null pointer. Otherwise as call.")
      .def("run", &Queue::run, py::arg("arrays"), "Queue all.");
}
