// Python bindings of what makes rows of Python objects out of columns of integers.
#pragma once

#include <algorithm>
#include <cstdint>

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

// Columns of positions, each below the size of its column, that are written into others of the same type.
struct Arranged {
    std::vector<py::buffer_info> from, to;
    std::vector<size_t> sizes;
    size_t rows = 0;
};

// The rows in lexicographic order of some columns, the first of them first, largest positions first. Rows that differ
// in none of these stay as they come.
//
// From the last column to the first, as many at a time as count few combinations, rows are counted and put in place.
template <class Integer>
std::vector<uint32_t> descending(const Arranged& all, const std::vector<size_t>& by) {
    std::vector<uint32_t> order(all.rows), next(all.rows), digits(all.rows);
    for (size_t row = 0; row < all.rows; ++row) order[row] = static_cast<uint32_t>(row);
    const size_t most = all.rows < (1u << 10) ? 1u << 8 : 1u << 12;
    for (size_t stop = by.size(); stop > 0;) {
        size_t start = stop - 1, combinations = all.sizes[by[start]];
        while (start > 0 && combinations * all.sizes[by[start - 1]] <= most) combinations *= all.sizes[by[--start]];
        std::fill(digits.begin(), digits.end(), 0);
        for (size_t i = start; i < stop; ++i) {
            const Integer* column = static_cast<const Integer*>(all.from[by[i]].ptr);
            const uint32_t size = static_cast<uint32_t>(all.sizes[by[i]]);
            uint32_t beyond = 0;
            for (size_t row = 0; row < all.rows; ++row) {
                uint32_t position = static_cast<uint32_t>(column[row]);
                beyond |= position >= size;
                digits[row] = digits[row] * size + (size - 1 - position);
            }
            if (beyond) throw py::index_error("a position beyond the size of its column");
        }
        std::vector<uint32_t> places(combinations + 1, 0);
        for (uint32_t digit : digits) ++places[digit + 1];
        for (size_t digit = 0; digit < combinations; ++digit) places[digit + 1] += places[digit];
        for (uint32_t row : order) next[places[digits[row]]++] = row;
        order.swap(next);
        stop = start;
    }
    return order;
}

template <class Integer>
void arrange_as(const Arranged& all, const std::vector<size_t>& by) {
    std::vector<uint32_t> order = descending<Integer>(all, by);
    for (size_t i = 0; i < all.from.size(); ++i) {
        const Integer* from = static_cast<const Integer*>(all.from[i].ptr);
        Integer* to = static_cast<Integer*>(all.to[i].ptr);
        if (all.sizes[i] == 1)
            std::copy(from, from + all.rows, to);
        else
            for (size_t row = 0; row < all.rows; ++row) to[row] = from[order[row]];
    }
}

// sizes: of each column; by: columns, most significant first.
void arrange(const std::vector<py::buffer>& columns, const std::vector<size_t>& sizes, const std::vector<size_t>& by,
             const std::vector<py::buffer>& into) {
    Arranged all;
    all.sizes = sizes;
    if (columns.empty() || columns.size() != sizes.size() || columns.size() != into.size())
        throw py::value_error("a size and a place of each column");
    for (size_t i = 0; i < columns.size(); ++i) {
        all.from.push_back(columns[i].request());
        all.to.push_back(into[i].request(true));
        for (const py::buffer_info* info : {&all.from[i], &all.to[i]})
            if (info->ndim != 1 || (info->size > 1 && info->strides[0] != info->itemsize) ||
                info->itemsize != all.from[0].itemsize || info->size != all.from[0].size)
                throw py::value_error("columns must be contiguous integers of one width and one length");
    }
    all.rows = static_cast<size_t>(all.from[0].size);
    for (size_t i : by)
        if (i >= columns.size()) throw py::index_error("no such column");
    if (all.rows > UINT32_MAX) throw py::value_error("more rows than 32 bits number");
    for (size_t size : sizes)
        if (size > (size_t{1} << 24)) throw py::value_error("more positions than are worth counting");
    switch (all.from[0].itemsize) {
        case 1: return arrange_as<int8_t>(all, by);
        case 2: return arrange_as<int16_t>(all, by);
        case 4: return arrange_as<int32_t>(all, by);
        case 8: return arrange_as<int64_t>(all, by);
    }
    throw py::value_error("columns of integers");
}

}  // namespace

inline void bind_rows(py::module_& m) {
    m.def("tuples", &tuples);
    m.def("dictionaries", &dictionaries);
    m.def("arrange", &arrange);
}

}  // namespace constrint
