"""The paper's three claims where networks overfit: 1,500 training images of CIFAR-10.

python -m ldl_jax.study configs/studies/cifar10_few.py --set data.root=DATA --jobs=2

Student: ResNet-8; teacher: ResNet-14, one for each seed; a further 1,000 images are held out to fit
the temperature. DATA may contain any copy of CIFAR-10: its checksum is not verified
(`data.verify`), since an archive that was packed again has another one. Not measured yet.

A pilot chose the images and epochs: hard labels, seed 0, 10,000 test images, and the accuracy on the
training images at the end.

images  epochs  accuracy %  training %  ECE %   NLL  T     NLL at T
2,000   40      53.2        63.6        5.5   1.306  1.16  1.287
1,500   60      51.7        71.5        10.6  1.384  1.36  1.324

Hypotheses, written down before the runs: two for each claim, in the ECE, the NLL and the accuracy,
raw and at each run's temperature. Holm's correction is over the two of a claim and metric.

1. KD impedes calibration. The student of a distribution at temperature 1 (ldl) is better than that
   of KD at temperature 4 with weights 0.1 and 0.9 (kd), and than that of hard labels with hints
   (fitnet). The claim is about calibration; a refuted accuracy is its price.
2. Label distributions with recent augmentation improve calibration, and accuracy too. The teacher
   labels the mixed image (ldl_mix); this is better than hard labels (hard), and than CutMix with
   hard labels (hard_mix): the first alone could be the effect of mixing.
3. Online label distributions gain from long training, read as a frozen teacher that labels the image
   at hand. Three times as long is better (ldl_mix_long, ldl_mix), and the gain is larger than that
   of hard labels (hard_long, hard): training three times as long changes any method, and this
   difference of differences leaves what is due to the distributions on mixed images. Hard labels
   without mixing are subtracted because the claim is about the method as a whole; hard labels with
   CutMix, as long, are among the comparisons.

All other cells are exploratory, compared with hard labels of the same mixing and length.
"""

from ldl_jax.config import Cell, Finding, Study, eighths

IMAGES = 1_500  # to train on
HOLDOUT = 1_000
EPOCHS = 60.0  # of the short schedule; the long one has three times as many
BATCH = 128
DEPTH = 8  # of the student
TEACHER_DEPTH = 14
WIDTH = 32  # of the wide student's first stage; the usual one is 16
SEEDS = 6  # of the cells of the findings
FEW_SEEDS = 3  # of the others
SMALL = {
    "data.examples": IMAGES + HOLDOUT,
    "data.holdout": HOLDOUT,
    "data.batch_size": BATCH,
    "data.verify": False,
    "eval.train_examples": IMAGES,
    "train.save_every_epochs": 0.0,
    "train.log_every_steps": 75,
}


SHORT = {**eighths(EPOCHS), "train.eval_every_epochs": EPOCHS / 5}
LONG = {**eighths(3 * EPOCHS), "train.eval_every_epochs": 3 * EPOCHS / 5}
HARD = {"labels.name": "hard"}
LDL = {"labels.name": "teacher"}
KD = {
    "labels.name": "blend",
    "labels.blend.parts": ("hard", "teacher"),
    "labels.blend.weights": (0.1, 0.9),
    "labels.teacher.temperature": 4.0,
    "labels.teacher.soft": True,
}
FITNET = {"labels.name": "hard", "auxiliary.names": ("hint",)}
ONLINE = {
    "online": {"labels.name": "online"},
    "classwise": {"labels.name": "classwise", "labels.classwise.first": "zeros"},
    "mean_teacher": {"labels.name": "mean_teacher"},
    "peer": {"labels.name": "peer"},
}
CUTMIX = {"mixing.name": "cutmix"}
MIXUP = {"mixing.name": "mixup"}
RICAP = {"mixing.name": "ricap"}
WIDE = {"model.cifar_resnet.width": WIDTH}

# metric -> (its name in the groups, which values are better)
FAMILIES = {"ece": ("ECE", "lower"), "nll": ("NLL", "lower"), "accuracy": ("accuracy", "higher")}
# (name, better, than, second pair, claim in words)
HYPOTHESES = (
    ("1a", "ldl", "kd", (), "Knowledge distillation impedes calibration."),
    ("1b", "ldl", "fitnet", (), "So does distillation of features."),
    ("2a", "ldl_mix", "hard", (), "Label distributions with augmentation improve on hard labels."),
    ("2b", "ldl_mix", "hard_mix", (), "It is the labels, and not the mixing alone."),
    ("3a", "ldl_mix_long", "ldl_mix", (), "Online label distributions gain from long training."),
    ("3b", "ldl_mix_long", "ldl_mix", ("hard_long", "hard"), "They gain more than hard labels."),
)


def cell(name, fields, seeds=FEW_SEEDS, *, length=SHORT):
    """A row of the study; each seed of a student learns from the teacher of the same seed."""
    needs_teacher = fields["labels.name"] in ("teacher", "blend") or "auxiliary.names" in fields
    teachers = ("teacher",) if needs_teacher else ()
    settings = {**SMALL, **length, "model.cifar_resnet.depth": DEPTH, **fields}
    return Cell(name, "cifar10_hard.py", settings, seeds, teachers)


def primary():
    """The cells of the findings."""
    return (
        cell("teacher", {**HARD, "model.cifar_resnet.depth": TEACHER_DEPTH, "seed": 100}, SEEDS),
        cell("hard", HARD, SEEDS),
        cell("ldl", LDL, SEEDS),
        cell("kd", KD, SEEDS),
        cell("hard_mix", {**HARD, **CUTMIX}, SEEDS),
        cell("ldl_mix", {**LDL, **CUTMIX}, SEEDS),
        cell("fitnet", FITNET, SEEDS),
        cell("hard_long", HARD, SEEDS, length=LONG),
        cell("ldl_mix_long", {**LDL, **CUTMIX}, SEEDS, length=LONG),
    )


def others():
    """The exploratory cells."""
    short = [cell("smooth", {"labels.name": "smooth"})]
    long = [
        cell("hard_mix_long", {**HARD, **CUTMIX}, length=LONG),
        cell("ldl_long", LDL, length=LONG),
    ]
    for name, fields in ONLINE.items():
        short.append(cell(name, fields))
        long.append(cell(f"{name}_long", fields, length=LONG))
    for name, mixing in (("mixup", MIXUP), ("ricap", RICAP)):
        short.append(cell(f"ldl_{name}", {**LDL, **mixing}))
        short.append(cell(f"hard_{name}", {**HARD, **mixing}))
    wide = (
        cell("hard_wide", {**HARD, **WIDE}),
        cell("ldl_wide", {**LDL, **WIDE}),
        cell("online_wide", {**ONLINE["online"], **WIDE}),
    )
    return (*short, *long, *wide)


def comparisons():
    """(cell, cell it is compared with): the controls of each cell, where no finding has them."""
    pairs = [(name, "hard") for name in ("ldl", "kd", "fitnet", "smooth", *ONLINE)]
    pairs.append(("ldl_mix", "ldl"))
    for mixing in ("mix", "mixup", "ricap"):
        pairs.append((f"hard_{mixing}", "hard"))
    for mixing in ("mixup", "ricap"):
        pairs += [(f"ldl_{mixing}", f"hard_{mixing}"), (f"ldl_{mixing}", "hard")]
    # As long with hard labels, and shorter with the same labels.
    pairs += [("hard_long", "hard"), ("hard_mix_long", "hard_long"), ("hard_mix_long", "hard_mix")]
    pairs += [("ldl_mix_long", "hard_mix_long"), ("ldl_mix_long", "hard_long")]
    for name in ("ldl", *ONLINE):
        pairs += [(f"{name}_long", "hard_long"), (f"{name}_long", name)]
    # As wide with hard labels, and narrower with the same labels.
    pairs.append(("hard_wide", "hard"))
    for name in ("ldl", "online"):
        pairs += [(f"{name}_wide", "hard_wide"), (f"{name}_wide", name)]
    return tuple(pairs)


def findings():
    """Each hypothesis in each family of metrics, corrected within its claim and family."""
    rows = []
    for name, better, than, minus, claim in HYPOTHESES:
        for metric, (family, direction) in FAMILIES.items():
            group = f"{name[0]} {family}"
            # Once is enough for the claim in words.
            about = claim if metric == "ece" else ""
            rows.append(Finding(name, better, than, metric, direction, about, group, minus))
    return tuple(rows)


def get_study():
    """Six seeds for the cells of the findings, three for the others."""
    return Study(
        f"The three claims on {IMAGES:,} images of CIFAR-10",
        (*primary(), *others()),
        findings(),
        comparisons(),
        about=f"ResNet-{DEPTH} on {IMAGES:,} images of CIFAR-10, {HOLDOUT:,} held out, 10,000 to test "
        f"on, for {EPOCHS:g} and for {3 * EPOCHS:g} epochs; the teacher is a ResNet-{TEACHER_DEPTH}.",
    )
