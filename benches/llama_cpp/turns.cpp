// llama.cpp's side of the comparison; the commands are those of
// crates/model/benches/beside_llama_cpp.rs. usage: turns THREADS
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "ggml-cpu.h"
#include "ggml.h"
#include "llama.h"

// Shortest time that products are repeated for, in milliseconds.
constexpr double BATCH_MS = 5;
// Positions of the longest prompt and answer together.
constexpr int CONTEXT = 1024;

struct Times {
    double wall, cpu;
};

// Milliseconds by the clock and of the processor's time of this process.
static Times now() {
    timespec cpu;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    const auto wall = std::chrono::steady_clock::now().time_since_epoch();
    return {std::chrono::duration<double, std::milli>(wall).count(), cpu.tv_sec * 1e3 + cpu.tv_nsec * 1e-6};
}

template <typename Work> static Times timed(int parts, Work work) {
    const Times start = now();
    work();
    const Times end = now();
    return {(end.wall - start.wall) / parts, (end.cpu - start.cpu) / parts};
}

[[noreturn]] static void fail(const std::string & what) {
    std::cerr << "turns: " << what << "\n";
    std::exit(1);
}

// A ternary matrix and rows to multiply with it.
class Product {
  public:
    Product(int outputs, int inputs, int rows, int threads) : threads(threads) {
        std::vector<float> weights(size_t(outputs) * inputs), values(size_t(rows) * inputs);
        std::minstd_rand random(1);
        for (float & weight : weights) weight = int(random() % 3) - 1;
        for (float & value : values) value = (random() % 2001) * 1e-3f - 1;
        const size_t bytes = weights.size() + (values.size() + size_t(rows) * outputs) * 4 + (1 << 20);
        context.reset(ggml_init({bytes, nullptr, false}));
        ggml_tensor * w = ggml_new_tensor_2d(context.get(), GGML_TYPE_TQ2_0, inputs, outputs);
        ggml_tensor * x = ggml_new_tensor_2d(context.get(), GGML_TYPE_F32, inputs, rows);
        ggml_quantize_chunk(GGML_TYPE_TQ2_0, weights.data(), w->data, 0, outputs, inputs, nullptr);
        std::copy(values.begin(), values.end(), static_cast<float *>(x->data));
        graph = ggml_new_graph(context.get());
        ggml_build_forward_expand(graph, ggml_mul_mat(context.get(), w, x));
        plan = ggml_graph_plan(graph, threads, nullptr);
        scratch.resize(plan.work_size);
        plan.work_data = scratch.data();
    }

    Times time() {
        const double once = timed(1, [&] { run(); }).cpu;
        const int repeats = int(BATCH_MS / std::max(once, 1e-4)) + 1;
        return timed(repeats, [&] { for (int i = 0; i < repeats; i++) run(); });
    }

  private:
    void run() {
        if (ggml_graph_compute(graph, &plan) != GGML_STATUS_SUCCESS) fail("a product failed");
    }

    struct Free {
        void operator()(ggml_context * context) const { ggml_free(context); }
    };
    int threads;
    std::unique_ptr<ggml_context, Free> context;
    ggml_cgraph * graph;
    ggml_cplan plan;
    std::vector<uint8_t> scratch;
};

// A model with a sequence that commands extend.
class Opened {
  public:
    Opened(const std::string & file, int threads) {
        llama_model_params model_params = llama_model_default_params();
        model_params.n_gpu_layers = 0;
        model = llama_model_load_from_file(file.c_str(), model_params);
        if (!model) fail("cannot open " + file);
        llama_context_params params = llama_context_default_params();
        params.n_ctx = params.n_batch = params.n_ubatch = CONTEXT;
        params.n_threads = params.n_threads_batch = threads;
        context = llama_init_from_model(model, params);
        if (!context) fail("no context for " + file);
        vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    }

    ~Opened() {
        llama_free(context);
        llama_model_free(model);
    }

    Times prefill(int tokens, int & likeliest) {
        truncate(0);
        const Times times = timed(1, [&] { extend(tokens); });
        const float * logits = llama_get_logits_ith(context, -1);
        likeliest = int(std::max_element(logits, logits + vocabulary) - logits);
        return times;
    }

    Times decode(int positions, int tokens) {
        if (held < positions) extend(positions);
        truncate(positions);
        return timed(tokens, [&] { for (int step = 1; step <= tokens; step++) extend(positions + step); });
    }

  private:
    void truncate(int len) {
        llama_memory_seq_rm(llama_get_memory(context), -1, len, -1);
        held = len;
    }

    void extend(int len) {
        std::vector<llama_token> tokens;
        for (int at = held; at < len; at++) tokens.push_back(llama_token((int64_t(at) * 7919 + 13) % vocabulary));
        if (llama_decode(context, llama_batch_get_one(tokens.data(), int(tokens.size())))) fail("decoding failed");
        llama_synchronize(context);
        held = len;
    }

    llama_model * model;
    llama_context * context;
    int vocabulary, held = 0;
};

int main(int count, char ** arguments) {
    if (count != 2) fail("usage: turns THREADS");
    const int threads = std::atoi(arguments[1]);
    llama_log_set([](ggml_log_level level, const char * text, void *) {
        if (level == GGML_LOG_LEVEL_ERROR) std::cerr << text;
    }, nullptr);
    llama_backend_init();
    std::unique_ptr<Product> product;
    std::unique_ptr<Opened> opened;
    std::string line, made;
    while (std::getline(std::cin, line)) {
        std::istringstream words(line);
        std::string command;
        words >> command;
        Times times{0, 0};
        int likeliest = -1;
        if (command == "product") {
            int outputs, inputs, rows;
            words >> outputs >> inputs >> rows;
            if (made != line) product = std::make_unique<Product>(outputs, inputs, rows, threads);
            made = line;
            times = product->time();
        } else if (command == "open") {
            std::string file;
            words >> file;
            opened.reset();
            opened = std::make_unique<Opened>(file, threads);
        } else if (command == "prefill" && opened) {
            int tokens;
            words >> tokens;
            times = opened->prefill(tokens, likeliest);
        } else if (command == "decode" && opened) {
            int positions, tokens;
            words >> positions >> tokens;
            times = opened->decode(positions, tokens);
        } else {
            fail("unknown command `" + line + "`");
        }
        std::cout << times.wall << " " << times.cpu << " " << likeliest << std::endl;
    }
}
