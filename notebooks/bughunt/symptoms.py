"""What people saw of the mutants, by number. Losses are of TEXT, where the healthy model has 2.10; greedy texts begin
with PROMPT."""

TEXT = "Once upon a time there was a miller who had a donkey, and the donkey was tired."
PROMPT = "There was once a fisherman who"

SYMPTOMS = {
    1: "After one token all is right. The greedy text goes its own way at the second word, and the loss is 0.2 higher.",
    2: "Nearly right: of the twenty likeliest next tokens of TEXT one is another.",
    3: "Read at once, every text is right. Written with the cache, it goes on differently than without.",
    4: "The same ids give the same logits. The same text does not.",
    5: "The loss is nearly 10, and yet the greedy text is the healthy model's.",
    6: "It writes henhenhenhenhen.",
    7: "The logits are wrong after one token already. The texts are good all the same; the loss is 0.2 higher.",
    8: "Theoutputlookslikethis.",
    9: "It writes who who who who, and the loss is 8.3.",
    10: "It writes a a a, a little, a little. The loss is twice what it should be.",
    11: "It writes in circles, and is a little faster than it should be. The loss is 1.0 higher.",
    12: "After one token all is right. The texts are good, and the loss is 0.06 higher.",
    13: "A temperature of 0.5 makes no difference to a temperature of 1.",
    14: "The greedy text begins as it should. The loss is above 11.",
    15: "Word salad; the loss is nearly 6.",
    16: "After one token all is right. The greedy text goes its own way at the fourth word; the loss is 0.1 higher.",
    17: "The loss is better than the healthy model's. What it writes is not.",
    18: "With a repetition penalty of 1.3, some words that were used already become likelier.",
    19: "After one token all is right. The texts are good, and the loss is 0.05 higher.",
    20: "Every draw is noise. The loss is 8.3, which is the logarithm of 4,096.",
    21: "The grammar breaks after some words. The loss is 0.9 higher.",
    22: "The logits are off by some percent, from the first token on. The loss is the same to two digits.",
    23: "After one token all is right. The loss is 0.17 higher.",
    24: "The logits after the first tokens change when the text goes on. With the cache it writes ThouThouThou.",
    25: "With top_p=0.9 the tokens kept have less than 0.9 of the probability.",
    26: "The logits are wrong after one token already. The loss is 0.7 higher.",
    27: "After one token all is right. The texts lose their thread, and the loss is 0.4 higher.",
    28: "Every text is right. The logits are off in the fourth digit.",
    29: "Somebody converted it from other files. After one token all is right; the loss is 0.6 higher.",
    30: "Every text is right. The logits are off in the fourth digit, as those of mutant 28, but not by the same.",
}
