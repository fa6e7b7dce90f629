// Classes with virtual functions, an exception, and a static variable of a function.
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

struct Shape {
    virtual ~Shape() = default;
    virtual double area() const = 0;
#ifdef VIRTUAL_ADDED
    virtual double outline() const { return 0; }
#endif
    virtual const char *name() const { return "shape"; }
};

struct Square : Shape {
    double side;
    explicit Square(double side) : side(side) {}
    double area() const override {
#ifdef BODY_CHANGED
        if (side < 0)
            throw std::runtime_error("negative");
#endif
        return side * side;
    }
    const char *name() const override { return "square"; }
};

struct Circle : Shape {
    double radius;
    explicit Circle(double radius) : radius(radius) {}
    double area() const override { return 3.14159 * radius * radius; }
};

static int made;

__attribute__((noinline)) std::vector<std::string> &log() {
    static std::vector<std::string> lines;
    return lines;
}

__attribute__((noinline)) Shape *make(const std::string &what, double size) {
    made++;
    log().push_back(what);
    if (what == "square")
        return new Square(size);
    if (what == "circle")
        return new Circle(size);
    throw std::invalid_argument(what);
}

__attribute__((noinline)) double measure(const Shape *shape) {
    try {
        return shape->area();
#ifdef OTHER_CATCH
    } catch (const std::logic_error &) {
#else
    } catch (const std::runtime_error &) {
#endif
        return -1;
    }
}

// In versions of the language before C++17 this is looked up when something is thrown.
__attribute__((noinline)) int quiet(const std::string &what) throw() {
    log().push_back(what);
    return made;
}

int main(int argc, char **argv) {
    double sum = 0;
    for (int i = 1; i < argc; i++) {
        try {
            Shape *shape = make(argv[i], i);
            sum += measure(shape);
            std::puts(shape->name());
            delete shape;
        } catch (const std::exception &e) {
            std::printf("%s %d\n", e.what(), made);
        }
    }
    sum += quiet("done");
    std::printf("%f %zu\n", sum, log().size());
}
