// Python bindings of what makes rows of Python objects out of columns of integers.
#pragma once

#include "bind.hpp"

namespace constrint {

namespace py = pybind11;

namespace {

// A column of signed integers, and the objects whose positions they are (none: they stand for themselves).
class Objects {
public:
    Objects(const py::buffer& column, const py::object& values) : info_(column.request()) {
        if (info_.ndim != 1 || (info_.size > 1 && info_.strides[0] != info_.itemsize) ||
            (info_.itemsize != 1 && info_.itemsize != 2 && info_.itemsize != 4 && info_.itemsize != 8))
            throw py::value_error("a column must be contiguous integers");
        if (values.is_none()) return;
        values_ = py::list(values);
        known_ = true;
        count_ = static_cast<int64_t>(values_.size());
    }
    ssize_t size() const { return info_.size; }
    // A new reference.
    PyObject* at(ssize_t row) const {
        int64_t number = value(row);
        if (!known_) return PyLong_FromLongLong(number);
        if (number < 0 || number >= count_) throw py::index_error("a position beyond the values of its column");
        PyObject* found = PyList_GET_ITEM(values_.ptr(), static_cast<ssize_t>(number));
        Py_INCREF(found);
        return found;
    }

private:
    int64_t value(ssize_t row) const {
        switch (info_.itemsize) {
            case 1: return static_cast<const int8_t*>(info_.ptr)[row];
            case 2: return static_cast<const int16_t*>(info_.ptr)[row];
            case 4: return static_cast<const int32_t*>(info_.ptr)[row];
        }
        return static_cast<const int64_t*>(info_.ptr)[row];
    }
    py::buffer_info info_;
    py::list values_;
    bool known_ = false;
    int64_t count_ = 0;
};

std::vector<Objects> objects_of(const std::vector<py::buffer>& columns, const std::vector<py::object>& values) {
    if (columns.size() != values.size() || columns.empty()) throw py::value_error("the values of each column");
    std::vector<Objects> result;
    for (size_t i = 0; i < columns.size(); ++i) {
        result.emplace_back(columns[i], values[i]);
        if (result[i].size() != result[0].size()) throw py::value_error("columns of one length");
    }
    return result;
}

py::list tuples(const std::vector<py::buffer>& columns, const std::vector<py::object>& values) {
    std::vector<Objects> objects = objects_of(columns, values);
    ssize_t count = objects[0].size(), width = static_cast<ssize_t>(objects.size());
    py::list result(static_cast<size_t>(count));
    for (ssize_t row = 0; row < count; ++row) {
        py::object made = py::reinterpret_steal<py::object>(PyTuple_New(width));
        if (!made) throw py::error_already_set();
        for (ssize_t i = 0; i < width; ++i) PyTuple_SET_ITEM(made.ptr(), i, objects[static_cast<size_t>(i)].at(row));
        PyList_SET_ITEM(result.ptr(), row, made.release().ptr());
    }
    return result;
}

py::list dictionaries(const std::vector<py::str>& names, const std::vector<py::buffer>& columns,
                      const std::vector<py::object>& values) {
    std::vector<Objects> objects = objects_of(columns, values);
    if (names.size() != columns.size()) throw py::value_error("one name a column");
    py::dict first;
    for (const py::str& name : names) first[name] = py::none();
    ssize_t count = objects[0].size();
    py::list result(static_cast<size_t>(count));
    for (ssize_t row = 0; row < count; ++row) {
        // A copy has its places already.
        py::object made = py::reinterpret_steal<py::object>(PyDict_Copy(first.ptr()));
        if (!made) throw py::error_already_set();
        for (size_t i = 0; i < names.size(); ++i) {
            py::object value = py::reinterpret_steal<py::object>(objects[i].at(row));
            if (PyDict_SetItem(made.ptr(), names[i].ptr(), value.ptr())) throw py::error_already_set();
        }
        PyList_SET_ITEM(result.ptr(), row, made.release().ptr());
    }
    return result;
}

}  // namespace

inline void bind_rows(py::module_& m) {
    m.def("tuples", &tuples);
    m.def("dictionaries", &dictionaries);
}

}  // namespace constrint
