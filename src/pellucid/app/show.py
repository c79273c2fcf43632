"""A training run on the terminal: what was understood, live progress, what came of it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from pellucid import nets
from pellucid.bundle.head import head_of
from pellucid.data.audit import counted
from pellucid.data.source import Understanding
from pellucid.scores import wilson
from pellucid.training import Audited, Epoch, Event, Noted, Reading, Run, Seeding, Seeds, Started, Understood
from pellucid.training import Progress as Step
from pellucid.training.lopsided import lopsided
from pellucid.training.prepare import Task
from pellucid.training.seeds import SEEDS

#: Classes listed by name; of more, these and a count.
LISTED = 12


def console(*, to_stderr: bool = False) -> Console:
    """Where a command writes. Paths and class names are printed as they are: no markup, no highlighting."""
    return Console(stderr=to_stderr, markup=False, highlight=False, emoji=False)


class Show:
    """Prints the events of a run as they come; live only on a terminal."""

    def __init__(self, *, to_stderr: bool) -> None:
        self.console = console(to_stderr=to_stderr)
        self.epochs = 0
        self._bar: Progress | None = None
        self._row: TaskID | None = None
        self._counts: dict[str, int] = {}
        self._again = False
        """Whether this is one of several runs, and not the first: what is as it was is not said again."""

    def __enter__(self) -> Self:
        """Nothing is shown yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Take the progress bar away, however the run ended."""
        if self._bar is not None:
            self._bar.stop()

    def event(self, event: Event | Seeding | Seeds) -> None:
        """Show one event."""
        match event:
            case Understood():
                self._understood(event.task)
            case Reading():
                self._reading(event)
            case Audited():
                self._audited(event)
            case Started():
                self._started(event)
            case Noted():
                self._print(f"note     {event.text}")
            case Step():
                self._step(event)
            case Epoch():
                self._epoch(event)
            case Run():
                self._run(event)
            case Seeding():
                self._seeding(event)
            case Seeds():
                self._seeds(event)

    def _print(self, *parts: Any) -> None:
        self.console.print(*parts, soft_wrap=True)

    def _understood(self, task: Task) -> None:
        source, about, recipe = task.source, task.understanding, task.recipe
        self._counts = about.counts["train"]
        if self._again:
            return
        self._print(f"data     {source.name if source.kind == 'named' else source.place}")
        self._print(f"classes  {_classes(about)}")
        held = f"{recipe.pictures.val:.0%} of train, stratified" if task.val_split_off else "the data's own"
        test = f", test {len(source.splits['test']):,} (not looked at)" if "test" in source.splits else ""
        self._print(f"split    train {len(task.train):,}, val {len(task.val):,} ({held}){test}")
        self._print(f"images   {_sizes(about)} -> {_seen(task)}")
        for note in (*source.notes, *task.notes):
            self._print(f"note     {note}")

    def _started(self, event: Started) -> None:
        for bad in event.left_out[:LISTED]:
            self._print(f"left out {bad}")
        if len(event.left_out) > LISTED:
            self._print(f"left out {len(event.left_out) - LISTED:,} more; skipped.csv has all")
        recipe = event.recipe
        self.epochs = recipe.optimisation.epochs or 0
        if self._again:
            self._print(f"run      {event.folder}")
            return
        summary = nets.summary(event.model, event.image)
        self._print("")
        self.console.print(_layers(summary, event.image))
        self._print(f"{summary.parameters:,} parameters. {summary.first_layer_as_fc}".rstrip())
        if event.variances is not None:
            layers = tuple(row for row in event.variances.rows if row.weights is not None)
            self._print("")
            self._print(f"first weights {recipe.optimisation.init}: how far they spread, and what they make of a batch")
            self._print(str(nets.Variances(layers)))
        optimisation, engine = recipe.optimisation, recipe.engine
        self._print("")
        if recipe.head_alone:
            self._print(f"recipe   no training: {recipe.head} on the features of these weights, seed {recipe.seed}")
        else:
            decay = optimisation.lr_decay_by_depth
            depth = "" if decay is None else f", times {decay:g} a layer down"
            self._print(
                f"recipe   {optimisation.optimizer}, learning rate {optimisation.rate:g} ({optimisation.schedule}"
                f"{depth}), batch {optimisation.batch_size}, {optimisation.epochs} epochs, {optimisation.loss}, "
                f"seed {recipe.seed}" + (f", then {recipe.head}" if recipe.head else "")
            )
        self._print(f"engine   {engine.precision}, {engine.layout}, {_threads(engine.threads)}{_measured(event)}")
        if event.found is not None:
            self._print(
                f"rate     {event.found.suggestion:g}, a tenth of {event.found.lowest:.2g}, where the loss of "
                f"{len(event.found.rates)} steps with a rising rate was lowest (lr.png)"
            )
        self._print(f"run      {event.folder}")
        self._print("")

    def _reading(self, event: Reading) -> None:
        self._live("reading pictures", event.done, event.total, "")

    def _audited(self, event: Audited) -> None:
        counts = counted(event.audit.problems)
        if counts:
            listed = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
            self._print(f"found    {listed} (pellucid check {event.audit.place} tells all)")
        for note in event.notes:
            self._print(f"note     {note}")

    def _live(self, what: str, done: int, total: int, live: str) -> None:
        """The line at the bottom that changes; on a terminal only."""
        if not self.console.is_terminal:
            return
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[live]}"),
                TimeElapsedColumn(),
                console=self.console,
                transient=True,
            )
            self._bar.start()
            self._row = self._bar.add_task(what, total=total, live=live)
        assert self._row is not None
        self._bar.update(self._row, description=what, completed=done, total=total, live=live)

    def _step(self, step: Step) -> None:
        live = (
            f"loss {step.loss:.3f}  accuracy {step.accuracy:.3f}  {step.images_per_second:,.0f} images/s  "
            f"{_time(step.seconds_left)} left"
        )
        self._live(f"epoch {step.epoch}/{self.epochs}", step.step, step.steps, live)

    def _epoch(self, event: Epoch) -> None:
        row = event.row
        right = f"{row['accuracy']:.3f}"
        if "train_accuracy" in row:
            right = f"{right} (mixed) {row['train_accuracy']:.3f} (unmixed)"
        auc = "" if row["val_auc"] is None else f"  auc {row['val_auc']:.3f}"
        # Lines of a run that an older version began have no interval.
        low, high = row.get("val_accuracy_low"), row.get("val_accuracy_high")
        between = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
        self._print(
            f"epoch {row['epoch']:>{len(str(self.epochs))}}/{self.epochs}  loss {row['loss']:.4f}  accuracy "
            f"{right}  |  val loss {row['val_loss']:.4f}  accuracy {row['val_accuracy']:.3f}{between}{auc}  |  "
            f"{row['images_per_second']:,.0f} images/s  {_time(row['seconds'])}{'  best' if event.best else ''}"
        )

    def _run(self, run: Run) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        for note in run.notes:
            self._print(f"note     {note}")
        self._print("")
        if run.stopped:
            self._print(f"stopped; go on with: pellucid train --resume {run.folder}")
        head = head_of(run.recogniser.model)
        on = "" if head is None else f"{head.kind} on "
        weights = f"the weights of epoch {run.epoch}" if run.epoch or head is None else "the weights as they came"
        self._print(f"{sentence(run.scores, 'val')}, {on}{weights}")
        self._print(balanced_sentence(run.scores))
        # A finished run that is only shown again has read no training pictures; val was held out in their shares.
        if lopsided(self._counts or {row["class"]: row["support"] for row in run.scores["per_class"]}):
            self._print(f"recall   {_recalls(run.scores)}")
        if run.folder.joinpath("curves.png").exists():
            self._print(f"look at  {run.folder / 'curves.png'}, confusion.png, errors.csv")
        self._print(f"next     pellucid predict {run.folder} PICTURE...")

    def _seeding(self, event: Seeding) -> None:
        self._again = event.number > 1
        if self._again:
            self._print("")
        self._print(f"seed     {event.seed} ({event.number} of {event.count})")

    def _seeds(self, found: Seeds) -> None:
        document = found.to_json()
        self._print("")
        if found.stopped:
            self._print(
                f"stopped, {len(found.runs)} of {len(found.seeds)} runs done; go on with: pellucid train --resume "
                f"{found.folder}"
            )
        for figure, name in (("accuracy", "accuracy"), ("balanced_accuracy", "balanced accuracy"), ("auc", "ROC-AUC")):
            if document[figure] is not None:
                self._print(f"{name} {_spread(document[figure])}")
        listed = ", ".join(
            f"{row['accuracy']:.3f} ({row['accuracy_low']:.3f} to {row['accuracy_high']:.3f})"
            for row in document["runs"]
        )
        self._print(f"accuracy of each run on val: {listed}" if listed else "")
        self._print(f"look at  {found.folder / SEEDS}")


def _spread(figure: dict[str, Any]) -> str:
    return (
        f"{figure['mean']:.3f} ± {figure['sd']:.3f} on val (mean ± sd of {figure['n']} seeds; 95 % interval of the "
        f"mean {figure['low']:.3f} to {figure['high']:.3f})"
    )


def sentence(scores: dict[str, Any], split: str) -> str:
    """Accuracy with its interval and what it has to beat."""
    return (
        f"accuracy {scores['accuracy']:.3f} on {split} (95 % interval {scores['accuracy_low']:.3f} to "
        f"{scores['accuracy_high']:.3f}, n = {scores['n']:,}; always the commonest class: {scores['baseline']:.3f})"
    )


def balanced_sentence(scores: dict[str, Any]) -> str:
    """Balanced accuracy with its interval."""
    if scores["balanced_accuracy"] is None:
        return "balanced accuracy –"
    said = f"balanced accuracy {scores['balanced_accuracy']:.3f}"
    if "balanced_accuracy_low" not in scores:  # of a run that an older version finished
        return said
    low, high = scores["balanced_accuracy_low"], scores["balanced_accuracy_high"]
    return f"{said} (95 % interval {low:.3f} to {high:.3f})"


def _recalls(scores: dict[str, Any]) -> str:
    """How much is found of each class, the least found first."""
    rows = sorted((row for row in scores["per_class"] if row["support"]), key=lambda row: float(row["recall"]))
    listed = [
        f"{row['class']} {row['recall']:.3f} ({low:.3f} to {high:.3f}, n = {row['support']:,})"
        for row in rows[:LISTED]
        for low, high in [wilson(round(row["recall"] * row["support"]), row["support"])]
    ]
    more = f", and {len(rows) - LISTED} more" if len(rows) > LISTED else ""
    return f"{', '.join(listed)}{more}"


def _layers(summary: nets.Summary, image: tuple[int, ...]) -> Table:
    """The layers that change a shape or have parameters; `str(summary)` has them all."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("layer", "output", "size", "parameters"):
        table.add_column(heading, justify="right" if heading == "parameters" else "left", no_wrap=heading != "size")
    table.add_row("", "×".join(map(str, image)), "the image", "")
    before: tuple[int, ...] | None = image
    for row in summary.rows:
        if row.parameters or row.output != before:
            table.add_row(row.name, "×".join(map(str, row.output or ())), row.formula, f"{row.parameters:,}")
        before = row.output
    return table


def _classes(about: Understanding) -> str:
    """How many classes, and how many training pictures of each."""
    counts = about.counts["train"]
    names = list(counts)[:LISTED]
    more = f", and {len(counts) - LISTED} more" if len(counts) > LISTED else ""
    if len(set(counts.values())) == 1:
        return f"{len(counts)}, {next(iter(counts.values())):,} pictures each: {', '.join(names)}{more}"
    listed = ", ".join(f"{name} {counts[name]:,}" for name in names)
    fewest, most = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    spread = f" (fewest: {fewest} {counts[fewest]:,}; most: {most} {counts[most]:,})" if more else ""
    return f"{len(counts)}: {listed}{more}{spread}"


def _sizes(about: Understanding) -> str:
    colour = "grey" if about.grey else "colour"
    (w0, h0), (w1, h1), (w2, h2) = about.sizes["min"], about.sizes["median"], about.sizes["max"]
    if (w0, h0) == (w2, h2):
        return f"{colour}, {w0}×{h0}"
    return f"{colour}, {w0}×{h0} to {w2}×{h2}, median {w1}×{h1}"


def _seen(task: Task) -> str:
    height, width = task.preprocess.size
    channels = "grey" if task.preprocess.channels == 1 else "colour"
    augment = ", ".join(task.recipe.pictures.augment or ()) or "nothing"
    return f"{width}×{height} {channels} ({task.preprocess.resize}), changed at random: {augment}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _measured(event: Started) -> str:
    if not event.measured.table:
        return ""
    plain, chosen = event.measured.table[0], next(row for row in event.measured.table if row["chosen"])
    faster = plain["milliseconds"] / chosen["milliseconds"]
    how = "remembered" if event.measured.remembered else "measured"
    return (
        f" ({how}: {chosen['milliseconds']:.1f} ms a step, {faster:.1f}× "
        f"{plain['precision']} {plain['layout']} on {_threads(plain['threads'])})"
    )


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
