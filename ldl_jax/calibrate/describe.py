"""Fitted calibrators in words: a temperature with its interval, and what to be wary of."""

# With 10 errors the ends of the interval were a factor of 1.5 to 2.2 apart, with 2 errors 2 to 5.
FEW = 10
# Calibrators that divide the logits by `temperature` and do nothing else.
TEMPERATURES = ("safe_temperature", "temperature")


def is_temperature(name: str) -> bool:
    """Whether a calibrator of that name divides logits by a temperature, and does nothing else."""
    return name in TEMPERATURES


def temperature(params: dict) -> str:
    """'temperature 1.5 (95 % interval 1.2 to 1.9)'; without the interval if it was not computed."""
    text = f"temperature {params['temperature']:.4g}"
    between = interval(params)
    return f"{text} (95 % interval {between})" if between else text


def interval(params: dict) -> str:
    """The 95 % interval of a temperature; '' for those fitted before there were intervals."""
    if "interval_low" not in params:
        return ""
    low, high = params["interval_low"], params["interval_high"]
    if low is None and high is None:
        return "open at both ends"
    if low is None:
        return f"up to {high:.4g}, open below"
    if high is None:
        return f"from {low:.4g}, open above"
    return f"{low:.4g} to {high:.4g}"


def doubts(params: dict, source: str) -> list[str]:
    """Why a temperature is uncertain: few errors, or an open interval; a sentence or none."""
    between = interval(params)
    errors = params.get("errors", FEW)
    if errors < FEW:
        plural = "" if errors == 1 else "s"
        return [
            f"The temperature rests on {errors} error{plural} in {source}, fewer than {FEW}, so it "
            f"is uncertain (95 % interval {between})"
        ]
    if "open" in between:
        return [f"{source} does not bound the temperature (95 % interval {between})"]
    return []


def notes(name: str, params: dict, source: str) -> list[str]:
    """What a reader of recalibrated figures must know, a sentence each without a full stop.

    name: of the calibrator; source: the name of the examples that it was fitted on.
    """
    sentences = []
    if params.get("at_bound"):
        sentences.append(
            f"The fitted temperature hit a limit of the search ({params['temperature']:g}), so no "
            f"temperature can be estimated from {source}"
        )
    if name == "safe_temperature" and params["temperature"] == 1:
        ratio = f"{params['likelihood_ratio']:.3g}"
        sentences.append(
            f"The temperature stays 1: {source} does not show that another one is better "
            f"(likelihood ratio {ratio}, more than {params['likelihood_ratio_needed']:g} needed)"
        )
    sentences += doubts(params, source)
    if params.get("converged") is False:
        sentences.append(
            f"The calibrator {name} did not converge within its maximal number of steps"
        )
    if params.get("missing_classes"):
        sentences.append(
            f"{params['missing_classes']} of {params['classes']} classes do not occur in {source}; "
            f"{name} was fitted on the others, and these keep their probabilities at temperature "
            f"{params['missing_temperature']:.4g}"
        )
    return sentences
