/*
 * A library in C++: exceptions pass through its functions, each thread has a variable of its own, and threads are cancelled
 * while they wait in it. BODY makes its next version, and LATER the one after that.
 */
#include <stdexcept>
#include <string>
#include <unistd.h>

#include "shapes.h"

namespace {
thread_local long asked;
long cleaned;

struct Cleaner {
    ~Cleaner() { cleaned++; }
};

struct Shape {
    virtual ~Shape() = default;
    virtual double area() const = 0;
};

struct Square : Shape {
    double side;
    explicit Square(double side) : side(side) {}
    __attribute__((noinline)) double area() const override {
        Cleaner cleaner;
#ifdef BODY
        if (side > 100)
            throw std::out_of_range("a large square");
#endif
        if (side < 0)
            throw std::runtime_error("no square");
        return side * side;
    }
};
} // namespace

__attribute__((noinline)) static double measure(const Shape &shape, double side) {
    Cleaner cleaner;
#if defined(LATER)
    if (side == 13)
        return 0;
#endif
    return shape.area() + side * 0;
}

extern "C" int shapes_measure(double side, char *out, unsigned long room) {
    asked++;
    try {
        Square square(side);
        double area = measure(square, side);
        std::string text = std::to_string(area);
        return (int)text.copy(out, room);
    } catch (const std::out_of_range &error) {
        return (int)(std::string("out of range: ") + error.what()).copy(out, room);
    } catch (const std::exception &error) {
        return (int)(std::string("error: ") + error.what()).copy(out, room);
    }
}

extern "C" long shapes_asked(void) {
#ifdef BODY
    if (asked > 1000000)
        return -1;
#endif
    return asked;
}

extern "C" long shapes_cleaned(void) { return cleaned; }

extern "C" __attribute__((noinline)) void shapes_wait(int fd) {
    Cleaner cleaner;
    char byte;
    while (read(fd, &byte, 1) == 1) {
#ifdef BODY
        if (byte == 'q')
            return;
#endif
    }
}
