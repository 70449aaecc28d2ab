// The memory of torch's large tensors on a CPU: segments that are kept when they are freed, and used again.
//
// A C library that serves large and small things from one heap breaks up the room that a large one leaves, and takes
// more from the system for the next. Here a large tensor gets a segment of its own, whose size is a power of two, so
// that tensors of different lengths use the same segments, one after another. Pages that nobody touches cost nothing.

#include <pthread.h>
#include <sys/mman.h>

#include <bit>
#include <mutex>
#include <unordered_map>
#include <vector>

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

namespace {

constexpr size_t SMALLEST = size_t(1) << 18, LARGEST = size_t(1) << 28;  // bytes

class Segments final : public c10::Allocator {
public:
    explicit Segments(c10::Allocator* others) : others_(others) {}

    c10::DataPtr allocate(size_t bytes) override {
        void* at = bytes < SMALLEST || bytes > LARGEST ? nullptr : take(std::bit_ceil(bytes));
        if (!at) return by_others(bytes);
        return {at, at, &drop, c10::Device(c10::DeviceType::CPU)};
    }

    c10::DeleterFnPtr raw_deleter() const override { return &drop; }

    void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

    size_t release() {
        const std::lock_guard<std::mutex> guard(lock_);
        return unmap_free();
    }

    // A process that is copied while another thread holds the lock would wait for it forever.
    void lock_for_fork() {
        pthread_atfork([] { installed->lock_.lock(); }, [] { installed->lock_.unlock(); }, [] { installed->lock_.unlock(); });
    }

    static Segments* installed;

private:
    size_t unmap_free() {
        size_t released = 0;
        for (const auto& [size, segments] : free_) {
            for (void* at : segments) munmap(at, size);
            released += size * segments.size();
        }
        free_.clear();
        return released;
    }

    c10::DataPtr by_others(size_t bytes) {
        try {
            return others_->allocate(bytes);
        } catch (const c10::Error&) {
            if (!release()) throw;
            return others_->allocate(bytes);
        }
    }

    static void* map(size_t size) {
        void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return at == MAP_FAILED ? nullptr : at;
    }

    void* take(size_t size) {
        const std::lock_guard<std::mutex> guard(lock_);
        auto& segments = free_[size];
        void* at;
        if (!segments.empty()) {
            at = segments.back();  // the last one that was freed: it may still be in the processor's cache
            segments.pop_back();
        } else {
            at = map(size);
            if (!at && unmap_free()) at = map(size);  // what is kept for other sizes makes room
            if (!at) return nullptr;
        }
        used_[at] = size;
        return at;
    }

    static void drop(void* at) {  // also what was allocated before, by others
        if (!installed->keep(at)) installed->others_->raw_deallocate(at);
    }

    bool keep(void* at) {
        const std::lock_guard<std::mutex> guard(lock_);
        const auto found = used_.find(at);
        if (found == used_.end()) return false;
        free_[found->second].push_back(at);
        used_.erase(found);
        return true;
    }

    c10::Allocator* others_;
    std::mutex lock_;
    std::unordered_map<void*, size_t> used_;               // size by address
    std::unordered_map<size_t, std::vector<void*>> free_;  // addresses by size
};

Segments* Segments::installed = nullptr;

}  // namespace

extern "C" {

void rs_keep_segments() {
    static std::once_flag once;  // two models may be loaded at once
    std::call_once(once, [] {
        Segments::installed = new Segments(c10::GetCPUAllocator());
        Segments::installed->lock_for_fork();
        c10::SetCPUAllocator(Segments::installed, 1);
    });
}

size_t rs_release_segments() { return Segments::installed ? Segments::installed->release() : 0; }
}
