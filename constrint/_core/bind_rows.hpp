// Python bindings of what makes rows of Python objects out of columns of integers.
#pragma once

#include "bind.hpp"

namespace constrint {

namespace py = pybind11;

namespace {

// Columns of signed integers of one width, and the objects whose positions they are (none: they stand for themselves).
class Rows {
public:
    Rows(const std::vector<py::buffer>& columns, const std::vector<py::object>& values) {
        if (columns.size() != values.size() || columns.empty()) throw py::value_error("the values of each column");
        for (size_t i = 0; i < columns.size(); ++i) {
            infos_.push_back(columns[i].request());
            const py::buffer_info& info = infos_[i];
            if (info.ndim != 1 || (info.size > 1 && info.strides[0] != info.itemsize) || info.itemsize != bytes() ||
                info.size != size())
                throw py::value_error("columns must be contiguous integers of one width and one length");
            lists_.push_back(values[i].is_none() ? py::list() : py::list(values[i]));
            known_.push_back(!values[i].is_none());
            for (py::handle value : lists_[i]) atomic_ = atomic_ && !PyObject_IS_GC(value.ptr());
        }
    }
    ssize_t size() const { return infos_[0].size; }
    ssize_t bytes() const { return infos_[0].itemsize; }
    size_t width() const { return infos_.size(); }
    // Whether no object refers to others, so that no garbage can hang on a row.
    bool atomic() const { return atomic_; }

    // Call make(row, value), where value(i) is a new reference, for each row in turn.
    template <class Make>
    void each(Make make) const {
        switch (bytes()) {
            case 1: return each_of<int8_t>(make);
            case 2: return each_of<int16_t>(make);
            case 4: return each_of<int32_t>(make);
            case 8: return each_of<int64_t>(make);
        }
        throw py::value_error("columns of integers");
    }

private:
    struct Place {
        const void* numbers;
        PyObject** objects;  // none: the numbers themselves
        size_t count;
    };

    template <class Integer, class Make>
    void each_of(Make make) const {
        std::vector<Place> places;
        for (size_t i = 0; i < width(); ++i)
            places.push_back({infos_[i].ptr, known_[i] ? PySequence_Fast_ITEMS(lists_[i].ptr()) : nullptr,
                              known_[i] ? lists_[i].size() : 0});
        for (ssize_t row = 0; row < size(); ++row) {
            auto number = [&](size_t i) { return static_cast<const Integer*>(places[i].numbers)[row]; };
            auto value = [&](size_t i) -> PyObject* {
                const Place& place = places[i];
                if (known_[i]) {
                    size_t position = static_cast<size_t>(number(i));
                    if (position >= place.count) throw py::index_error("a position beyond the values of its column");
                    Py_INCREF(place.objects[position]);
                    return place.objects[position];
                }
                PyObject* made = PyLong_FromLongLong(number(i));
                if (!made) throw py::error_already_set();
                return made;
            };
            auto changed = [&](size_t i) {
                const Integer* numbers = static_cast<const Integer*>(places[i].numbers);
                return !row || numbers[row] != numbers[row - 1];
            };
            make(row, value, changed);
        }
    }

    std::vector<py::buffer_info> infos_;
    std::vector<py::list> lists_;
    std::vector<char> known_;
    bool atomic_ = true;
};

py::list tuples(const std::vector<py::buffer>& columns, const std::vector<py::object>& values) {
    Rows rows(columns, values);
    py::list result(static_cast<size_t>(rows.size()));
    rows.each([&](ssize_t row, auto value, auto) {
        py::object made = py::reinterpret_steal<py::object>(PyTuple_New(static_cast<ssize_t>(rows.width())));
        if (!made) throw py::error_already_set();
        for (size_t i = 0; i < rows.width(); ++i) PyTuple_SET_ITEM(made.ptr(), static_cast<ssize_t>(i), value(i));
        // As the garbage collector would, after it had looked through all of them.
        if (rows.atomic()) PyObject_GC_UnTrack(made.ptr());
        PyList_SET_ITEM(result.ptr(), row, made.release().ptr());
    });
    return result;
}

py::list dictionaries(const std::vector<py::str>& names, const std::vector<py::buffer>& columns,
                      const std::vector<py::object>& values) {
    Rows rows(columns, values);
    if (names.size() != columns.size()) throw py::value_error("one name a column");
    py::dict first;
    for (const py::str& name : names) first[name] = py::none();
    py::list result(static_cast<size_t>(rows.size()));
    PyObject* before = first.ptr();
    rows.each([&](ssize_t row, auto value, auto changed) {
        // A copy has its places already, and most of its values: rows come in lexicographic order.
        py::object made = py::reinterpret_steal<py::object>(PyDict_Copy(before));
        if (!made) throw py::error_already_set();
        before = made.ptr();
        for (size_t i = 0; i < names.size(); ++i) {
            if (!changed(i)) continue;
            py::object own = py::reinterpret_steal<py::object>(value(i));
            if (PyDict_SetItem(before, names[i].ptr(), own.ptr())) throw py::error_already_set();
        }
        PyList_SET_ITEM(result.ptr(), row, made.release().ptr());
    });
    return result;
}

}  // namespace

inline void bind_rows(py::module_& m) {
    m.def("tuples", &tuples);
    m.def("dictionaries", &dictionaries);
}

}  // namespace constrint
