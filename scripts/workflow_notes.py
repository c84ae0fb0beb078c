"""What the workflows say: their notes, and the captions that they draw."""

START = """# NSYNC quickstart
Press **Run**. In a few minutes on a CPU, a small model that is part of this pack learns a style \
that it has never seen, by plain LoRA and by NSYNC, and draws the same prompts with the same seeds \
without and with it. Nothing is downloaded."""

SET_NOTE = """## 1. The style set
Pictures of one style, with captions that tell what is on them, **not** how they are drawn. The \
word `sks` will stand for the style. Here the pack draws the pictures itself; for your own, choose \
a folder in **Style Set** and leave the two sockets open."""

NEGATIVES_NOTE = """## 2. The negative set
The model itself paints the same captions in a *generic* style ("painting", "illustration", \
"animation"). These show what all such pictures have in common: what a style should **not** learn. \
They are kept on disk and reused."""

TRAINER_NOTE = """## 3. Two trainings
Above with rule `plain`: an ordinary LoRA, which learns all that the pictures show. Below with a \
contrastive rule: of each step, what it shares with the negatives is taken out. Both LoRAs are \
saved where **Load LoRA** lists them, under the name shown."""

VERDICT_NOTE = """## 5. The verdict
**Style Comparison** draws captions that training has not seen, by the base and by both LoRAs, \
with the same seeds. **Style Evaluator** says how near each comes to the style, whether the \
difference is real, and writes a report. The **ruler** knows the tiny base's world; for your own \
model take CSD, see the workflow *nsync_evaluate*."""

COMPARE_NOTE = """## 4. Side by side
The same prompts and seeds: the base as it came, with the plain LoRA, with the NSYNC LoRA. Change \
the prompt and press **Run** again: nothing is trained twice."""

SD15_START = """# A style for Stable Diffusion 1.5
1. Put 10 to 50 pictures of the style, and beside each `x.png` a caption `x.txt`, into a folder \
under ComfyUI's `input` folder. **Caption Images** writes captions with a vision-language model.
2. Choose the checkpoint in **Load Checkpoint** and the folder in **Style Set**.
3. Choose `preset` by your card in **Train**: 8 GB or more are advised. Press **Run**."""

SD15_SET = """## 1. The style set
Captions tell the content, not the style. The token is a word that the model does not know; it \
becomes the trigger word. Pictures may have any size and shape. The report names every file with a \
problem."""

SD15_NEGATIVES = """## 2. The negative set
One picture per caption in a generic style, by the model itself, with 50 steps and guidance 7.5. \
An interrupted run goes on where it stopped; a changed caption remakes that picture alone."""

SD15_TRAINER = """## 3. The training
500 steps of rank 16 suit about 20 pictures; the preview shows how far it has come. Too faint: \
more steps. Content suffers: fewer steps, or a lower learning rate."""

SD15_COMPARE = """## 4. Without and with
The same prompt and seed. Keep the token in the prompt. The LoRA is in **Load LoRA** under the \
name shown."""


EMBEDDING_START = """# The paper's own setting: an embedding for Stable Diffusion 1.5
Textual inversion: not the model is trained but one word. The preset **paper** sets the rule \
`nsync`, 2 pictures per branch, learning rate 1e-3, 8000 steps; **paper, as released** what the \
authors' code really computes. Choose the checkpoint, your folder and the initial word \
(*painting*, *illustration* or *animation*) and press **Run**; hours on a GPU."""

EMBEDDING_TRAINER = """## 3. The training
The embedding is saved in `models/embeddings`; write `embedding:my_style_embedding` in any \
prompt. **Training Options** holds the initial word. Stopped, it goes on when you press **Run** \
again; with `pause_every` the graph draws with the half-trained embedding in between."""


EVALUATE_START = """# Was the style caught?
1. Choose your checkpoint, and in **Style Comparison** the LoRAs, one a line: `my_style*` takes \
all that begin so, `run:my_style` the checkpoints that **Style Watch** kept.
2. Put pictures of the style, best some that training has not seen, into a folder under `input`.
3. Put the encoders' files into `models/style_eval` and `models/clip_vision`, or switch \
`download` on. Press **Run**."""

EVALUATE_ENCODERS = """## 1. Encoders
**CSD** judges the style, **CLIP** is asked the same beside it as a control. Chain more: *dinov2* \
for content and drift, *clip-l-14-336* for CMMD, *inception* for FID and KID, *sscd* for copies. \
Pictures are encoded once and remembered."""

EVALUATE_ARMS = """## 2. The arms
The same captions and seeds for the base and each LoRA. Captions tell the content only, and are \
best ones that training has not seen: 20 or more make a verdict."""

EVALUATE_VERDICT = """## 3. The verdict
The node shows the chart and says it in words. The report is in `output/nsync/evaluations`: open \
`report.html` in a browser."""

HELD_OUT = """a red triangle on the left over a horizon
two blue squares at the top over a horizon
three blue rings on the right over a hill
two purple circles at the top
two red triangles on the left
two green rings on the right over a hill
three green squares at the top over a horizon
three blue circles on the right
two red rings at the top over a horizon
a red square at the bottom
a purple square on the left over a hill
a purple circle in the centre over a horizon"""
"""Captions that the quickstart's pictures do not have."""

OWN_CAPTIONS = """a house by the sea
a street in the rain
a bowl of fruit on a table
a portrait of an old man
a cat on a chair
mountains behind a lake
a sailing boat
a bridge over a river
a field of flowers
a woman reading a book
trees in the snow
a market square with people
a dog in the grass
a lighthouse at night
a vase with roses
a train in a station
children on a beach
a windmill
two horses under a tree
an empty room with a window"""
