/* leases.cpp - the pools from C++17: a pool and a block that end with their scope.
 *
 * The headers are C and need nothing around them; forty lines make them feel at home. */
#include <poolport/poolport.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace
{

void must(pp_status status)
{
    if (status != PP_OK) throw std::runtime_error(pp_status_text(status));
}

struct destroy {
    void operator()(pp_pool *pool) const { pp_pool_destroy(pool); }
};

using pool_ptr = std::unique_ptr<pp_pool, destroy>;

/* Owns one block, and gives it back at the end of its life. */
class lease
{
  public:
    lease(pp_pool *pool, std::size_t bytes) : pool_(pool) { must(pp_pool_acquire(pool, bytes, 0, &block_)); }
    lease(lease &&other) noexcept : pool_(std::exchange(other.pool_, nullptr)), block_(other.block_) {}
    lease(const lease &) = delete;
    lease &operator=(const lease &) = delete;
    lease &operator=(lease &&) = delete;
    ~lease()
    {
        if (pool_) pp_pool_release(pool_, block_.handle);
    }
    char *data() const { return static_cast<char *>(block_.data); }
    std::size_t size() const { return block_.size; }

  private:
    pp_pool *pool_;
    pp_block block_{};
};

pool_ptr make_slab(std::size_t block_bytes, std::size_t block_count)
{
    pp_slab_config config{};
    config.block_bytes = block_bytes;
    config.block_count = block_count;
    pp_pool *pool = nullptr;
    must(pp_slab_create(&config, &pool));
    return pool_ptr(pool);
}

unsigned long long live_blocks(const pp_pool *pool)
{
    pp_stats stats;
    pp_pool_stats(pool, &stats);
    return stats.live_blocks;
}

} // namespace

int main()
{
    pool_ptr pool = make_slab(4096, 8);
    {
        std::vector<lease> leases;
        for (int i = 0; i < 8; i++) {
            leases.emplace_back(pool.get(), 4096);
            std::memset(leases.back().data(), i, leases.back().size());
        }
        try {
            lease one_too_many(pool.get(), 1);
            return 1;
        } catch (const std::runtime_error &refusal) {
            std::printf("the ninth lease: %s\n", refusal.what());
        }
        std::printf("%llu blocks are live\n", live_blocks(pool.get()));
    }
    std::printf("%llu blocks are live\n", live_blocks(pool.get()));
    return live_blocks(pool.get()) != 0;
}
