"""The command line: parses arguments and calls profiles."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ptychrome import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``ptychrome``; returns the exit status.

    A mistake of the user ends in one line on standard error and status 2, an interrupt in 130.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    from ptychrome.profiles.errors import UserError

    try:
        if options.command == "ioc":
            from ptychrome.profiles.ioc import IOCOptions, run_ioc

            return run_ioc(
                IOCOptions(
                    sample=options.sample,
                    seed=options.seed,
                    frame_pixels=options.frame_pixels,
                    clock=options.clock,
                    prefix=options.prefix,
                    port=options.port,
                    stream=options.stream,
                )
            )
        if options.command == "demo":
            ioc_port = None
            if options.control == "epics":
                from ptychrome.profiles.ioc import search_on_a_free_port

                ioc_port = search_on_a_free_port()  # before anything imports ophyd
            from ptychrome.profiles.demo import demo

            return demo(
                size=options.size,
                particles=options.particles,
                seed=options.seed,
                recipe=options.recipe,
                directory=options.out,
                serve=options.serve,
                json_file=options.json,
                port=options.port,
                frames=options.frames,
                ioc_port=ioc_port,
                fly=options.fly,
            )
        if options.command == "spectra":
            from ptychrome.profiles.spectra import spectra

            return spectra(
                options.result,
                standards=options.standards,
                foil=options.foil,
                largest_shift_eV=options.shift_eV,
                keep_jump=options.keep_jump,
                components=options.components,
            )
        if options.command == "reference":
            from ptychrome.profiles.spectra import reference

            return reference(
                options.element, options.formulas, edge=options.edge, energy_eV=options.energy_eV
            )
        if options.command == "report":
            from ptychrome.profiles.report.command import report
            from ptychrome.profiles.report.options import ReportOptions

            return report(
                options.results,
                options.out,
                ReportOptions.parse(
                    groups=options.group,
                    clusters=options.clusters,
                    energy_eV=options.energy_eV,
                    scales=options.scale,
                    places=options.roi,
                    compounds=options.compound,
                    bulk=options.bulk,
                    foil=options.foil,
                ),
            )
        from ptychrome.profiles.process import process

        return process(
            options.files,
            options.out,
            recipe=options.recipe,
            probe_fwhm_m=options.probe_fwhm_m,
            defocus_m=options.defocus_m,
            clusters=options.clusters,
        )
    except UserError as error:
        print(f"ptychrome: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ptychrome: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ptychrome",
        description="Live X-ray spectroscopic ptychography for Bluesky: chemical maps while the "
        "energies arrive.",
        epilog="`ptychrome COMMAND --help` tells more.",
    )
    parser.add_argument("--version", action="version", version=f"ptychrome {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="a whole experiment on the simulated beamline, analysed while it runs",
        description="Scan simulated particles over the V K-edge with a real RunEngine, reconstruct and map "
        "them while the energies arrive, and compare with the truth of the simulation.",
    )
    demo.add_argument(
        "--size", choices=("tiny", "quick", "paper"), default="quick",
        help="quick (default): P1 and D1, 128² frames, minutes; paper: eight samples, 256² frames, hours; "
        "tiny: a part of P1, 64² frames, 21 energies, a minute or two, to see that all works",
    )  # fmt: skip
    demo.add_argument(
        "--particles",
        type=_names,
        metavar="P1,D1",
        help="samples instead of those of --size: P1-P3, D1-D3, LiVO2, LiVO3",
    )
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is random (default 0)")
    demo.add_argument(
        "--recipe", default="live", metavar="NAME", help="live (default), paper, or a .toml file"
    )
    demo.add_argument(
        "--out", type=Path, default=Path("ptychrome-results"), metavar="DIR",
        help="where frames and results go (default ./ptychrome-results)",
    )  # fmt: skip
    demo.add_argument(
        "--no-serve", dest="serve", action="store_false", help="exit when done instead of serving on"
    )
    demo.add_argument("--json", type=Path, metavar="FILE", help="write the table of errors as JSON too")
    demo.add_argument(
        "--port", type=int, default=0, metavar="N", help="of the Tiled server (default: any free one)"
    )
    demo.add_argument(
        "--frames", choices=("files", "stream"), default="files",
        help="how frames reach the analysis: files (default), or the detector's own 0MQ stream",
    )  # fmt: skip
    demo.add_argument(
        "--fly", action="store_true",
        help="fly along the lines of a raster, 75 nm in an exposure, instead of stopping at its points",
    )  # fmt: skip
    demo.add_argument(
        "--control", choices=("twin", "epics"), default="twin",
        help="twin (default): the simulation inside this process; epics: behind an IOC of its own, through "
        "Channel Access",
    )  # fmt: skip

    ioc = commands.add_parser(
        "ioc",
        help="the simulated beamline behind EPICS Channel Access",
        description="Serve the simulated beamline, motors, detector and all, on this machine alone until "
        "Ctrl-C. profiles/profile_ioc is the session for it.",
    )
    ioc.add_argument(
        "--sample", default="P1", metavar="NAME", help="on the stage: P1-P3, D1-D3, LiVO2, LiVO3 (default P1)"
    )
    ioc.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is random (default 0)")
    ioc.add_argument(
        "--frame-pixels", type=int, default=128, metavar="N", help="rows and columns of a frame (default 128)"
    )
    ioc.add_argument(
        "--clock", type=float, default=1.0, metavar="X",
        help="seconds per second of motion and exposure (default 1: real time; 0: nothing takes time)",
    )  # fmt: skip
    ioc.add_argument("--prefix", default="SIM:", metavar="P:", help="of all records (default SIM:)")
    ioc.add_argument(
        "--port", type=int, default=5064, metavar="N", help="where clients search, UDP (default 5064)"
    )
    ioc.add_argument(
        "--stream", default="", metavar="ADDRESS",
        help="where the detector streams its frames too, such as tcp://127.0.0.1:9999 (default: nowhere)",
    )  # fmt: skip

    process = commands.add_parser(
        "process",
        help="reconstruct and map stored CXI files",
        description="Turn a CXI set (one file per energy, or folders of them) or a stored documents file "
        "(.jsonl) into results, through the same pipeline as a live scan.",
    )
    process.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE_OR_DIR",
        help="CXI files, folders of them, or one .jsonl file",
    )
    process.add_argument(
        "--out", type=Path, required=True, metavar="result.nxs",
        help="NeXus file of the results; a figure of the same name is drawn beside it",
    )  # fmt: skip
    process.add_argument(
        "--recipe", default="live", metavar="NAME", help="live (default), paper, or a .toml file"
    )
    process.add_argument(
        "--probe-fwhm-m", type=float, default=300e-9, metavar="M",
        help="focus width at the lowest energy, where the files hold no start probe (default 300e-9)",
    )  # fmt: skip
    process.add_argument(
        "--defocus-m", type=float, default=0.0, metavar="M", help="sample downstream of the focus (default 0)"
    )
    process.add_argument(
        "--clusters", type=int, metavar="K", help="number of clusters (default: the recipe's)"
    )
    _add_spectra(commands)
    _add_reference(commands)
    _add_report(commands)
    return parser


def _add_spectra(commands: argparse._SubParsersAction) -> None:
    spectra = commands.add_parser(
        "spectra",
        help="components of a result, and its pixels as sums of standards",
        description="Count and draw the spectral components of a finished result and fit every pixel by a "
        "sum of measured standards. The arrays are added to the file, and a figure is drawn beside it.",
    )
    spectra.add_argument("result", type=Path, metavar="result.nxs", help="written by `ptychrome process`")
    spectra.add_argument(
        "--standards", nargs="+", type=Path, default=[], metavar="FILE",
        help="spectra of standards: XDI, Athena's columns (.nor, .xmu, .dat) or projects (.prj)",
    )  # fmt: skip
    spectra.add_argument(
        "--foil", type=Path, metavar="FILE",
        help="spectrum of a metal foil on the energy scale of the standards, which is then corrected",
    )  # fmt: skip
    spectra.add_argument(
        "--shift-eV", type=float, default=0.0, metavar="EV",
        help="fit a common energy shift of the standards, up to so much (default 0: none)",
    )  # fmt: skip
    spectra.add_argument(
        "--keep-jump", action="store_true",
        help="shares must add up to the edge jump of the maps (default: to that of the sum itself)",
    )  # fmt: skip
    spectra.add_argument(
        "--components", type=int, metavar="K", help="number of components (default: those above the noise)"
    )


def _add_reference(commands: argparse._SubParsersAction) -> None:
    reference = commands.add_parser(
        "reference",
        help="Re[N_eff]/N of compounds",
        description="Print what Re[N_eff] per atom of the edge's element would be in pure compounds, from "
        "each set of constants.",
    )
    reference.add_argument("element", metavar="ELEMENT", help="whose edge the scan covers, such as V")
    reference.add_argument("formulas", nargs="+", metavar="FORMULA", help="such as LiVO2 or Li10/7V6/7O2")
    reference.add_argument("--edge", default="K", metavar="EDGE", help="K (default), L3, …")
    reference.add_argument(
        "--energy-eV", type=float, metavar="EV",
        help="lowest energy of the scan (default: 45 eV below the edge)",
    )  # fmt: skip


def _add_report(commands: argparse._SubParsersAction) -> None:
    report = commands.add_parser(
        "report",
        help="figures and numbers of any results on one page",
        description="Draw images, spectra, chemical maps, states and distributions of all particles of the "
        "results on common scales, clustered together: report.html, a PDF of its figures, and CSV files.",
    )
    report.add_argument(
        "results",
        nargs="+",
        metavar="RESULT",
        help="a .nxs file, a folder of them, or the address of a result in Tiled",
    )
    report.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the report (new, or an earlier report)",
    )
    report.add_argument(
        "--group", action="append", default=[], metavar="NAME=SAMPLE,SAMPLE",
        help="samples of one state of preparation; may be repeated (default: as the results say)",
    )  # fmt: skip
    report.add_argument(
        "--clusters", type=int, metavar="K", help="number of chemical states (default: that of the results)"
    )
    report.add_argument(
        "--energy-eV", type=float, metavar="E", help="of the images (default: the highest measured)"
    )
    report.add_argument(
        "--scale", action="append", default=[], metavar="MAP=LOW,HIGH",
        help="colour scale of a map, e.g. n_eff_ratio=30,50 (default: those of the paper); may be repeated",
    )  # fmt: skip
    report.add_argument(
        "--roi", action="append", default=[], metavar="[SAMPLE=]X_M,Y_M",
        help="centre of a region of 120 nm whose spectrum is shown (default: one for each state); may be "
        "repeated",
    )  # fmt: skip
    report.add_argument(
        "--compound", action="append", metavar="FORMULA",
        help="compound whose Re[N_eff]/N_V is told for comparison (for V those of the paper); may be "
        "repeated",
    )  # fmt: skip
    report.add_argument(
        "--bulk", nargs="+", type=Path, default=[], metavar="FILE",
        help="bulk spectra drawn beside those of regions and states: XDI, Athena's columns or projects",
    )  # fmt: skip
    report.add_argument(
        "--foil", type=Path, metavar="FILE",
        help="spectrum of a metal foil on the energy scale of the bulk spectra, which is then corrected",
    )  # fmt: skip


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    sys.exit(main())
