"""Fits of eq. (1) per second, beside SciPy and lmfit: ``python tests/benchmarks/bench_fit.py --help``.

Spectra are drawn from eq. (1) at Δμt/σ of 10 to 40, 40 energies, 10 parameters. Everyone starts from the fit
of the mean spectrum, with the same bounds, and stops at the same tolerance; SciPy has the analytic Jacobian,
lmfit is shown with and without. Printed are fits per second of wall and of processor time (which other
programs on the machine disturb less), and how our optima compare with SciPy's, whose tolerance is tighter
there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import lmfit
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import curve_fit
from scipy.special import erf

from ptychrome.analysis.xanes import XanesModel, XanesOptions, evaluate, fit_xanes
from ptychrome.plans import v_k_edge

Float = NDArray[np.float64]
MODEL = XanesModel.for_edge("V")
ENERGY = np.array(v_k_edge())
TIGHT = 1e-10  # tolerance of what counts as SciPy's optimum


def draw(n: int, rng: np.random.Generator) -> tuple[Float, Float]:
    """Spectra (n, 40) with a jump of 0.2 between all kinds of oxides, and their noise (n,)."""
    u = rng.random((8, n))
    b2 = 5476 + 5 * u[0]
    parameters = [
        np.full(n, 0.02), np.full(n, 0.2), b2, 2 + 2 * u[1],
        0.02 + 0.1 * u[2], 5468.5 + u[3], 0.9 + 0.7 * u[4],
        0.04 + 0.1 * u[5], b2 + 5 + 3 * u[6], 3 + 3 * u[7],
    ]  # fmt: skip
    sigma = 0.2 / (10 * 4 ** rng.random(n))
    clean = evaluate(MODEL, np.stack(parameters, axis=1), ENERGY)
    return clean + sigma[:, None] * rng.standard_normal(clean.shape), sigma


def function(energy: Float, *p: float) -> Float:
    """Eq. (1) in plain NumPy."""
    a, b1, b2, b3, c11, c12, c13, c21, c22, c23 = p
    return (
        a
        + 0.5 * b1 * (1 + erf((energy - b2) / b3))
        + c11 / (1 + ((energy - c12) / c13) ** 2)
        + c21 / (1 + ((energy - c22) / c23) ** 2)
    )


def jacobian(energy: Float, *p: float) -> Float:
    """Its derivatives, (n, 10)."""
    _, b1, b2, b3, *peaks = p
    u = (energy - b2) / b3
    slope = -b1 * np.exp(-u * u) / (np.sqrt(np.pi) * b3)
    columns = [np.ones_like(energy), 0.5 * (1 + erf(u)), slope, u * slope]
    for c1, c2, c3 in zip(peaks[::3], peaks[1::3], peaks[2::3], strict=True):
        v = (energy - c2) / c3
        shape = 1 / (1 + v * v)
        d = 2 * c1 * v * shape * shape / c3
        columns += [shape, d, v * d]
    return np.stack(columns, axis=1)


def limits() -> tuple[Float, Float]:
    """Bounds of all parameters; amplitudes are free."""
    lower, upper = np.full(10, -np.inf), np.full(10, np.inf)
    _, lower[MODEL.shape], upper[MODEL.shape] = MODEL.intervals()
    return lower, upper


def scipy_fit(spectrum: Float, start: Float, tolerance: float) -> Float:
    """Parameters by scipy.optimize.curve_fit."""
    lower, upper = limits()
    return curve_fit(
        function, ENERGY, spectrum, np.clip(start, lower + 1e-6, upper - 1e-6), bounds=(lower, upper),
        jac=jacobian, ftol=tolerance, xtol=tolerance, gtol=1e-12, max_nfev=2000, x_scale="jac",
    )[0]  # fmt: skip


def lmfit_fit(spectrum: Float, start: Float, tolerance: float) -> Float:
    """Parameters by lmfit's leastsq with the analytic Jacobian."""
    lower, upper = limits()
    names = MODEL.names
    parameters = lmfit.create_params(
        **{n: {"value": v, "min": a, "max": b} for n, v, a, b in zip(names, start, lower, upper, strict=True)}
    )

    def residual(p: lmfit.Parameters) -> Float:
        return function(ENERGY, *(p[name].value for name in names)) - spectrum

    def derivatives(p: lmfit.Parameters) -> Float:
        return jacobian(ENERGY, *(p[name].value for name in names))

    found = lmfit.minimize(residual, parameters, Dfun=derivatives, ftol=tolerance, xtol=tolerance)
    return np.array([found.params[name].value for name in names])


def lmfit_model(spectrum: Float, start: Float, tolerance: float) -> Float:
    """Parameters by lmfit.Model, as its users write it: with numerical derivatives."""
    lower, upper = limits()

    def eq1(energy, a, b1, b2, b3, c11, c12, c13, c21, c22, c23):
        return function(energy, a, b1, b2, b3, c11, c12, c13, c21, c22, c23)

    model = lmfit.Model(eq1)
    parameters = model.make_params(
        **{
            n: {"value": v, "min": a, "max": b}
            for n, v, a, b in zip(MODEL.names, start, lower, upper, strict=True)
        }
    )
    found = model.fit(spectrum, parameters, energy=ENERGY, fit_kws={"ftol": tolerance, "xtol": tolerance})
    return np.array([found.params[name].value for name in MODEL.names])


def rate(job: Callable[[], object], fits: int, repeats: int) -> tuple[float, float]:
    """Best fits per second of wall and of processor time among some repeats."""
    wall, processor = [], []
    for _ in range(repeats):
        begin, spent = time.perf_counter(), time.process_time()
        job()
        wall.append(time.perf_counter() - begin)
        processor.append(time.process_time() - spent)
    return fits / min(wall), fits / min(processor)


def one_by_one(fit: Callable[[Float, Float, float], Float], spectra: Float, start: Float, tolerance: float):
    """A fit of each spectrum, (n, 10)."""
    return np.array([fit(spectrum, start, tolerance) for spectrum in spectra])


def cost(parameters: Float, spectra: Float) -> Float:
    """Sum of squares of each spectrum."""
    return np.sum((spectra - evaluate(MODEL, parameters, ENERGY)) ** 2, axis=1)


def main() -> None:
    """Everything in one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--spectra", type=int, default=40_000, help="for our fit")
    parser.add_argument("--others", type=int, default=200, help="for the times of SciPy and lmfit")
    parser.add_argument("--parity", type=int, default=1000, help="for the comparison of optima")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=3)
    chosen, console = parser.parse_args(), Console(width=120)
    spectra, sigma = draw(chosen.spectra, np.random.default_rng(chosen.seed))
    options = {workers: XanesOptions(workers=workers) for workers in (1, 2)}
    fit = fit_xanes(ENERGY, spectra, model=MODEL, sigma=sigma, options=options[1])
    start, few = fit.mean_parameters, spectra[: chosen.others]
    rates = {
        f"ptychrome, {workers} thread{'s' * (workers > 1)}": rate(
            partial(fit_xanes, ENERGY, spectra, model=MODEL, sigma=sigma, options=options[workers]),
            chosen.spectra,
            chosen.repeats,
        )
        for workers in (1, 2)
    }
    for name, other in (
        ("scipy curve_fit", scipy_fit),
        ("lmfit, Jacobian", lmfit_fit),
        ("lmfit.Model", lmfit_model),
    ):
        rates[name] = rate(partial(one_by_one, other, few, start, options[1].tolerance), len(few), 2)
    table = Table(title=f"{ENERGY.size} energies, 10 parameters, tolerance {options[1].tolerance:g}")
    for column in ("", "fits/s", "fits per cpu second", "2 threads are … × faster", "per cpu second"):
        table.add_column(column, justify="right" if column else "left")
    ours = rates["ptychrome, 2 threads"]
    for name, (wall, processor) in rates.items():
        table.add_row(
            name, f"{wall:.0f}", f"{processor:.0f}", f"{ours[0] / wall:.1f}", f"{ours[1] / processor:.1f}"
        )
    console.print(table)
    part = spectra[: chosen.parity]
    reference = one_by_one(scipy_fit, part, start, TIGHT)
    found = fit.parameters[: len(part)]
    ratio = cost(found, part) / cost(reference, part)
    near, lower = np.abs(found[:, 2] - reference[:, 2]) < 0.02, ratio < 1 - 1e-4
    console.print(
        f"{len(part)} optima against SciPy's: b2 within 20 meV {near.mean():.2%}, that or a lower cost "
        f"{(near | lower).mean():.2%}, cost ≤ (1 + 1e-4) × SciPy's {np.mean(ratio <= 1 + 1e-4):.2%}, "
        f"lower by more than 1e-4 {lower.mean():.2%}; converged {fit.converged.mean():.2%}"
    )


if __name__ == "__main__":
    main()
