//! What the golden hashes must be.

/// Name and hash of each family of operations, in hexadecimal and in the order of
/// [`golden`](super::golden): version 1 of the arithmetic. A hash that changes is a new version, as
/// machines of both would accuse each other. A family that is added at the end is none: it looks at
/// more of what all machines compute.
pub const GOLDEN: [(&str, &str); 15] = [
    (
        "elementary functions",
        "bf70e1aee568226091d8add847123d8b0ff44a6608692672933a2b2beaa18d01",
    ),
    (
        "random numbers, top-k and sampler",
        "6418f103eb64fc1d9c03715da44bb718f302aaa1a624467febb12dd5daa596a9",
    ),
    (
        "norms and quantizer",
        "88153c0e225e7ddd26f5bffd5f9ce0ee8fd15c063362dce14d419c8d6df31b20",
    ),
    (
        "ternary products",
        "5fd5934ac4f30c262a4aa79fec8953d2ade381a44c386c480971a2e09a21a0f4",
    ),
    (
        "int8 products",
        "481ce502851a10888c3dd6c33b6ce1ef222eccf45812b7ecd4009657a75987f1",
    ),
    (
        "head, softmax and cross-entropy",
        "88f484fe4c299b69b00e69e31c9af79deb5ca5999a1a6bb72986a975ac3ca1bf",
    ),
    (
        "LoRA",
        "4dcc71e79f0db2be7e5ff8d66e627ed4b52cca85e4b13f3755f392b7c408018c",
    ),
    (
        "rotary positions",
        "1913f6c8e9535c327d69df9e3aa6e087a8e70e56735c26132ec1d23e63ef9009",
    ),
    (
        "attention",
        "89bbf3e48cabbcd07c1035a496f34d7e150eea89930ddf6b7131c5e2785656bb",
    ),
    (
        "attention with a cache",
        "1a369e808fd6134027334248c35acca4444400e2013331621c412a7678a4d106",
    ),
    (
        "gradients of attention",
        "9dd0bc45f6bfffcfec06935a58a904981aaf73440ca61feb37a6f4a3b1fa929b",
    ),
    (
        "gated activations",
        "f61f4c43662ddb4f0c1f6b0ab47840e71d102a726a6596d28e6b217b027d499f",
    ),
    (
        "AdamW",
        "dd7411301847014dfe09feb891eacdfa7589602b273285dfd103124cf10cb202",
    ),
    (
        "halves of quantizers' steps",
        "f85b6e3dcb952ebf72858961a400a03a3c8f6bc139f782d11d8974dc479447d8",
    ),
    (
        "halves of sums' steps",
        "777e1a1511dc6fdb6532d9e1e32151cfeed7e094e4614ffcb9904c474d65fb43",
    ),
];
