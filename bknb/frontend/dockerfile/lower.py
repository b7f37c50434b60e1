"""From resolved stages to LLB: each instruction changes its stage's state and image config.

The second half of BuildKit's dockerfile2llb/convert.go. Stages are lowered in the file's order, so what an
instruction names must come before it. RUN and COPY have modules of their own; everything else is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from bknb import llb
from bknb.errors import BknbError, DockerfileError, Range
from bknb.frontend.dockerfile import ast, ospath
from bknb.frontend.dockerfile.args import NOT_ENV, ArgInfo, expand, set_last
from bknb.frontend.dockerfile.durations import format_duration
from bknb.frontend.dockerfile.expose import parse_ports
from bknb.frontend.dockerfile.gotext import quote_list
from bknb.frontend.dockerfile.image import HISTORY_COMMENT, HealthConfig, History
from bknb.frontend.dockerfile.lint import Linter, looks_secret
from bknb.frontend.dockerfile.naming import instruction_name, step_name
from bknb.frontend.dockerfile.places import located
from bknb.frontend.dockerfile.signals import is_signal
from bknb.frontend.dockerfile.stages import BuildStage, Conversion, Step
from bknb.frontend.dockerfile.words import Lex
from bknb.garbage import no_collection
from bknb.llb.file import Owner
from bknb.llb.graph import Constraints, Output, Pending
from bknb.llb.run import DEFAULT_PATH
from bknb.llb.vertex import Location
from bknb.patterns import PatternMatcher
from bknb.platforms import Platform

_RAW: Final = Lex("\\", skip_process_quotes=True)


class Lowering:
    """One Dockerfile being lowered for one platform.

    Attributes:
        conversion: what all passes share.
        context: the main context; its output is filled in when every path that is used of it is known.
        uses_context: some vertex needs it.
        matcher: patterns of its ignore file, for a build check.
        naming: expands the text of a RUN for its name.
    """

    def __init__(self, conversion: Conversion, matcher: PatternMatcher | None) -> None:
        self.conversion = conversion
        self.matcher = matcher
        self.lint = conversion.lint
        self.naming = replace(conversion.lex, raw_quotes=True, skip_unset_env=True)
        self.context_output = Output(_Unfilled())
        self.context = llb.State().with_output(self.context_output)
        self.uses_context = False
        self.context_paths: set[str] = set()

    # --- what all instructions need ---

    def note(self, stage: BuildStage, step: Step, state: llb.State) -> None:
        """Remember what the newest vertex of a state was made for."""
        self.conversion.note(stage, step.command.text, step.ranges, state)

    def name(self, stage: BuildStage, step: Step, text: str, *, platform: Platform | None) -> str:
        """The name of a stage's next step; the platform counts where results are named by it."""
        platform = platform if self.multi else None
        self.conversion.spend(text)
        return step_name(stage, text, on_build=step.on_build, platform=platform, env=self.env(stage))

    @property
    def multi(self) -> bool:
        """Whether results are named by platform."""
        return self.conversion.options.multi_platform

    def env(self, stage: BuildStage) -> dict[str, str]:
        """A stage's variables."""
        if stage.env is None:
            stage.env = dict(stage.state.values.env.mapping())
        return stage.env

    def set_env(self, stage: BuildStage, key: str, value: str) -> None:
        """Set one of a stage's variables."""
        set_last(self.env(stage), key, value)
        stage.frozen_env = None

    def constraints(self, step: Step, name: str, **more: Any) -> Constraints:
        """What the vertex of an instruction carries beside its op."""
        location = Location(self.conversion.source, step.ranges)
        return Constraints(name=name, locations=(location,), **more)

    def ignores_cache(self, stage: BuildStage, step: Step) -> bool:
        """Whether an instruction is always run, with its stage or by itself. That of a base image has no line."""
        if stage.ignore_cache or step.on_build or not self.conversion.options.no_cache:
            return stage.ignore_cache
        names = {stage.name, stage.number} - {""}
        return self.conversion.options.ignores_line(names, step.command.start_line, step.command.end_line)

    def commit(self, stage: BuildStage, text: str, *, layer: bool = False) -> None:
        """Add a line to the image's history."""
        epoch = self.conversion.epoch
        created = "" if epoch is None else epoch.told()
        self.conversion.spend(text)
        stage.image.history.append(History(text, created, "", HISTORY_COMMENT, not layer))

    # --- stages ---

    @no_collection()
    def lower(self, stages: Iterable[BuildStage], needed: set[BuildStage], target: BuildStage) -> None:
        """Lower every stage that is needed.

        Raises:
            DockerfileError: an instruction that cannot be carried out.
        """
        every = self.conversion.all_stages
        for stage in stages:
            if every or (stage in needed and not stage.dispatched):
                self._stage(stage)
                self.context_paths |= stage.context_paths
        # The target is used whole.
        target.paths.add("/")

    def _stage(self, stage: BuildStage) -> None:
        stage.inherit()
        stage.dispatched = True
        platform = stage.platform = stage.platform or self.conversion.platforms.target
        image, env = stage.image, self.env(stage)
        if "PATH" not in image.env and platform.os != "windows":
            image.env.set("PATH", DEFAULT_PATH)
        for key, value in image.env.pairs():
            set_last(env, key, value)
        if hostname := self.conversion.options.hostname:
            stage.state = stage.state.with_hostname(hostname)
        if image.working_dir:
            try:
                self._set_dir(stage, image.working_dir)
            except DockerfileError as error:
                raise located(error, stage.ranges) from None
        if image.user:
            stage.state = stage.state.with_user(image.user)
        stage.state = stage.state.with_network(self.conversion.options.network)
        for step in stage.steps:
            try:
                self._step(stage, step)
            except BknbError as error:
                raise located(error, step.ranges) from error

    def _step(self, stage: BuildStage, step: Step) -> None:
        lint = self.lint = self.conversion.lint.for_comments(step.command.comments)
        command = expand(step.command, self.expander(stage, step), self.expander(stage, step, _RAW))
        match command:
            case ast.Run():
                from bknb.frontend.dockerfile.run_mounts import lower_run

                lower_run(self, stage, step, command)
            case ast.Copy() | ast.Add():
                from bknb.frontend.dockerfile.copy import lower_copy

                lower_copy(self, stage, step, command)
            case ast.Workdir():
                self._workdir(stage, step, command)
            case ast.Arg():
                self._arg(stage, step, command)
            case ast.Env():
                self._env(stage, step, command)
            case ast.Expose():
                self._expose(stage, step, command, lint)
            case _:
                self._metadata(stage, step, command)

    def expander(self, stage: BuildStage, step: Step, lex: Lex | None = None) -> Callable[[str], str]:
        """A function that expands a word of an instruction, and reports variables that are not set.

        It is for one instruction, while which no variable changes: equal words are expanded once.
        """
        lex = lex or self.conversion.lex
        lint = self.lint
        known: dict[str, str] = {}

        def expand_word(word: str) -> str:
            if "$" not in word and word.isalnum():
                return word
            if word in known:
                return self.conversion.spend(known[word])
            env = self.env(stage)
            try:
                result = lex.process_word(word, env)
            except DockerfileError as error:
                self.report_unset(stage, step, getattr(error, "unmatched", ()), lint)
                raise
            self.report_unset(stage, step, result.unmatched, lint)
            if not result.unmatched:
                known[word] = result.text
            return self.conversion.spend(result.text)

        return expand_word

    def report_unset(self, stage: BuildStage, step: Step, names: Iterable[str], lint: Linter) -> None:
        """The build check for variables that nothing has set."""
        names = [name for name in names if name not in NOT_ENV]
        if not names:
            return
        for name in names:
            if name not in stage.declared:
                lint.run("UndefinedVar", step.ranges, name, self.conversion.hint(name, self.env(stage)))

    # --- instructions ---

    def _env(self, stage: BuildStage, step: Step, command: ast.Env) -> None:
        words = ["ENV"]
        for pair in command.pairs:
            if pair.legacy:
                self.lint.run("LegacyKeyValueFormat", step.ranges, command.keyword)
            self._check_secret("ENV", pair.key, step.ranges)
            words.append(f"{pair.key}={pair.value}")
            self.set_env(stage, pair.key, pair.value)
            stage.image.env.set(pair.key, pair.value)
        self.commit(stage, " ".join(words))

    def _check_secret(self, instruction: str, key: str, ranges: tuple[Range, ...]) -> None:
        if looks_secret(key):
            self.lint.run("SecretsUsedInArgOrEnv", ranges, instruction, key)

    def _arg(self, stage: BuildStage, step: Step, command: ast.Arg) -> None:
        conversion = self.conversion
        shown = []
        for definition in command.args:
            key, value = definition.key, definition.value
            self._check_secret("ARG", key, step.ranges)
            inherited = value is None and key not in conversion.build_args and key in conversion.args
            if key in conversion.build_args:
                value = conversion.build_args[key]
            elif inherited:
                value = conversion.args[key]
            elif value is not None:
                value = self.expander(stage, step)(value)
            if value != definition.value:
                definition = ast.ArgDefinition(key, value, definition.doc)
            if value is not None and key not in NOT_ENV:
                self.set_env(stage, key, value)
            if not inherited:
                stage.needs.args[key] = ArgInfo(definition, value or "", step.ranges)
            stage.needs.used.add(key)
            stage.build_args.append(definition)
            stage.declared.add(key)
            shown.append(key if value is None else f"{key}={value}")
        self.commit(stage, "ARG " + " ".join(shown))

    def _set_dir(self, stage: BuildStage, path: str) -> str:
        assert stage.platform is not None
        system = stage.platform.os
        folder = ospath.normalize(stage.image.working_dir, path, system)
        stage.image.working_dir = ospath.from_slash(folder, system)
        stage.state = stage.state.with_dir(folder)
        return folder

    def _workdir(self, stage: BuildStage, step: Step, command: ast.Workdir) -> None:
        assert stage.platform is not None
        if not stage.workdir_set and not ospath.is_absolute(command.path, stage.platform.os):
            self.lint.run("WorkdirRelativePath", step.ranges, command.path)
        stage.workdir_set = True
        try:
            folder = self._set_dir(stage, command.path)
        except DockerfileError as error:
            raise DockerfileError(
                f"normalizing workdir: normalizing working directory: {error.message}"
            ) from None
        if folder != "/":
            owner: Owner | None = stage.image.user or None
            epoch = self.conversion.epoch
            created = -1 if epoch is None else epoch.nanoseconds
            text = instruction_name(command.text, self.conversion.lex, self.env(stage))
            constraints = self.constraints(step, self.name(stage, step, text, platform=stage.platform))
            action = llb.mkdir(folder, 0o755, parents=True, owner=owner, created=created)
            stage.state = stage.state.file(action, constraints=constraints)
            self.note(stage, step, stage.state)
        self.commit(stage, f"WORKDIR {folder}", layer=folder != "/")

    def _expose(self, stage: BuildStage, step: Step, command: ast.Expose, lint: Linter) -> None:
        env = self.env(stage)
        words = [word for port in command.ports for word in self.conversion.lex.process_words(port, env)]
        ports = parse_ports(words, lambda rule, word: lint.run(rule, step.ranges, word))
        stage.image.exposed_ports.update(ports)
        self.commit(stage, f"EXPOSE [{' '.join(ports)}]")

    def _once(self, stage: BuildStage, step: Step, kind: str) -> None:
        """The build check for instructions of which only the last counts; it names the earlier one."""
        if kind in stage.seen:
            self.lint.run("MultipleInstructionsDisallowed", stage.seen[kind], step.command.keyword)
        stage.seen[kind] = step.ranges

    def _command_line(
        self, stage: BuildStage, step: Step, command: ast.Cmd | ast.Entrypoint
    ) -> tuple[str, ...]:
        if not command.shell_form:
            return command.args
        if not stage.image.shell:
            self.lint.run("JSONArgsRecommended", step.ranges, command.keyword)
        return with_shell(stage, command.args)

    def _metadata(self, stage: BuildStage, step: Step, command: ast.Command) -> None:
        """Instructions that only change the image config."""
        image = stage.image
        match command:
            case ast.Maintainer():
                image.author = command.maintainer
                self.commit(stage, f"MAINTAINER {command.maintainer}")
            case ast.Label():
                for pair in command.pairs:
                    if pair.legacy:
                        self.lint.run("LegacyKeyValueFormat", step.ranges, command.keyword)
                    image.labels[pair.key] = pair.value
                self.commit(stage, "LABEL" + "".join(f" {p.key}={p.value}" for p in command.pairs))
            case ast.Cmd():
                self._once(stage, step, "cmd")
                image.cmd = self._command_line(stage, step, command)
                image.args_escaped = True
                self.commit(stage, f"CMD {quote_list(image.cmd)}")
            case ast.Entrypoint():
                self._once(stage, step, "entrypoint")
                image.entrypoint = self._command_line(stage, step, command)
                if "cmd" not in stage.seen:
                    image.cmd = None
                self.commit(stage, f"ENTRYPOINT {quote_list(image.entrypoint)}")
            case ast.Healthcheck():
                self._once(stage, step, "healthcheck")
                image.healthcheck = health = _health(command)
                self.commit(stage, f"HEALTHCHECK {_health_text(health)}")
            case ast.User():
                stage.state = stage.state.with_user(command.user)
                image.user = command.user
                self.commit(stage, f"USER {command.user}")
            case ast.Volume():
                if "" in command.volumes:
                    raise DockerfileError("VOLUME specified can not be an empty string")
                image.volumes.update(command.volumes)
                self.commit(stage, f"VOLUME [{' '.join(command.volumes)}]")
            case ast.Stopsignal():
                if not is_signal(command.signal):
                    raise DockerfileError(f"invalid signal: {command.signal}")
                image.stop_signal = command.signal
                self.commit(stage, f"STOPSIGNAL {command.signal}")
            case ast.Shell():
                image.shell = command.shell
                self.commit(stage, f"SHELL [{' '.join(command.shell)}]")
            case ast.Onbuild():
                image.on_build = (*image.on_build, command.expression)


class _Unfilled(Pending):
    """Stands for the main context until its paths are known."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Constraints())

    def sources(self) -> Iterable[Output]:
        return ()

    def make(self, edges: object, defaults: object) -> llb.Vertex:
        raise DockerfileError("the main context is used but was not looked up")


def with_shell(stage: BuildStage, args: tuple[str, ...]) -> tuple[str, ...]:
    """A command of the shell form as it is run."""
    default = ("cmd", "/S", "/C") if stage.image.os == "windows" else ("/bin/sh", "-c")
    return (*(stage.image.shell or default), " ".join(args))


def _health(command: ast.Healthcheck) -> HealthConfig:
    return HealthConfig(
        command.test,
        command.interval,
        command.timeout,
        command.start_period,
        command.start_interval,
        command.retries,
    )


def _health_text(health: HealthConfig) -> str:
    durations = (
        f"{name}:{format_duration(value)}"
        for name, value in (
            ("Interval", health.interval),
            ("Timeout", health.timeout),
            ("StartPeriod", health.start_period),
            ("StartInterval", health.start_interval),
        )
    )
    return f"{{Test:[{' '.join(health.test)}] {' '.join(durations)} Retries:{health.retries}}}"
