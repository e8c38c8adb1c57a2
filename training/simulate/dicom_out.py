"""Virtual patients as DICOM studies: NCCT, CT perfusion and truth maps, each instance marked as simulated.

Truth maps are written here and not by the node's writer, so that a reader of maps is tested against another hand.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from inference.maps import KINDS, MapKind
from training.simulate import dynamic, render
from training.simulate.colours import rainbow
from training.simulate.dynamic import REFERENCE, Protocol
from training.simulate.geometry import Grid
from training.simulate.patient import Patient
from training.simulate.vendors import VENDORS, Likeness, Vendor

MARK = "SIMULATED, NOT A PATIENT"
SCANNED = datetime(2026, 1, 5, 9, 10)  # of every virtual patient; nobody was there
WHAT = ("ncct", "bone", "ctp", "maps")
SERIES = {"ncct": 2, "bone": 3, "ctp": 4}
FIRST_MAP_SERIES = 501
CONSOLE = 10  # minutes from the start of the study until the console has made its maps
BAR = 12  # pixels: width of the colour bar of a captured map


@dataclass(frozen=True, slots=True)
class Series:
    """What the instances of one series share."""

    patient: Patient
    vendor: Vendor
    name: str
    number: int
    description: str

    def uid(self, *what: object) -> UID:
        """A UID of this patient that stays the same however often the study is written."""
        params = self.patient.params
        return generate_uid(entropy_srcs=["vsim", str(params.seed), str(params.attempt), *map(str, what)])

    def header(self, sop_class: UID, *instance: object) -> Dataset:
        """Patient, study, series and the mark of simulation; instance: what tells this one from its neighbours."""
        params, ds = self.patient.params, Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
        uid = self.uid(self.vendor.model, self.name, *instance)
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.SyntheticData, ds.ImageComments, ds.BurnedInAnnotation = "YES", MARK, "NO"
        ds.PatientName, ds.PatientID, ds.IssuerOfPatientID = f"VIRTUAL^{params.seed}", f"VSIM-{params.seed}", "VSIM"
        ds.PatientSex, ds.PatientAge = params.sex, f"{int(params.age):03d}Y"
        ds.PatientBirthDate = f"{SCANNED.year - int(params.age) - 1}0701"
        ds.StudyInstanceUID, ds.StudyID = self.uid("study"), str(params.seed)
        ds.AccessionNumber, ds.StudyDescription = f"VSIM{params.seed}", "SIM stroke"
        ds.ReferringPhysicianName, ds.InstitutionName, ds.StationName = "VIRTUAL^REFERRER", "Simulated", "VSIM"
        ds.Manufacturer, ds.ManufacturerModelName = self.vendor.manufacturer, self.vendor.model
        ds.DeviceSerialNumber, ds.SoftwareVersions = "0", "simulate"
        ds.SeriesInstanceUID = self.uid(self.vendor.model, self.name, "series")
        ds.SeriesNumber, ds.SeriesDescription, ds.BodyPartExamined = self.number, self.description, "HEAD"
        ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = self.uid("frame of reference"), ""
        stamp(ds, SCANNED + timedelta(minutes=self.number if self.number < FIRST_MAP_SERIES else CONSOLE))
        return ds


def stamp(ds: Dataset, when: datetime) -> None:
    """Dates and times of study, series, acquisition and content."""
    ds.StudyDate, ds.StudyTime = SCANNED.strftime("%Y%m%d"), SCANNED.strftime("%H%M%S")
    for level in ("Series", "Acquisition", "Content"):
        setattr(ds, f"{level}Date", when.strftime("%Y%m%d"))
        setattr(ds, f"{level}Time", when.strftime("%H%M%S.%f"))


def study(
    patient: Patient,
    grid: Grid,
    what: Sequence[str] = ("ncct", "maps"),
    vendor: Likeness = "plain",
    protocol: Protocol = REFERENCE,
) -> Iterator[Dataset]:
    """Every instance of the study; what: any of WHAT."""
    if unknown := [name for name in what if name not in WHAT]:
        raise ValueError(f"cannot write {unknown}; choose among: {', '.join(WHAT)}")
    if vendor not in VENDORS:
        raise ValueError(f"no vendor is called {vendor!r}; choose one of: {', '.join(VENDORS)}")
    like = VENDORS[vendor]
    writers: dict[str, Callable[[], Iterator[Dataset]]] = {
        "ncct": lambda: ncct(patient, grid, like),
        "bone": lambda: ncct(patient, grid, like, kernel="bone"),
        "ctp": lambda: ctp(patient, grid, like, protocol),
        "maps": lambda: maps(patient, grid, like),
    }
    for name in what:
        yield from writers[name]()


def write(datasets: Iterator[Dataset], folder: Path) -> list[Path]:
    """Save each instance as folder/<series number>-<count>.dcm."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for count, ds in enumerate(datasets, start=1):
        paths.append(folder / f"{int(ds.SeriesNumber):03d}-{count:05d}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def ncct(patient: Patient, grid: Grid, vendor: Vendor, kernel: str = "soft") -> Iterator[Dataset]:
    """The non-contrast series in the order of its instance numbers."""
    name = "ncct" if kernel == "soft" else "bone"
    series = Series(patient, vendor, name, SERIES[name], f"Head {grid.thickness:g} mm{' bone' * (kernel == 'bone')}")
    hu = render.ncct(patient, grid, kernel=kernel)
    for number, index in enumerate(_order(grid, vendor), start=1):
        ds = _ct_slice(series, grid, index, number, kernel, kvp=120)
        set_pixels(ds, hu[index], vendor)
        yield ds


def ctp(patient: Patient, grid: Grid, vendor: Vendor, protocol: Protocol) -> Iterator[Dataset]:
    """The perfusion series: one instance per slice and time, the times one after the other."""
    series = Series(patient, vendor, "ctp", SERIES["ctp"], "CTP 80 kV")
    number = 0
    for frame, hu in enumerate(dynamic.frames(patient, grid, protocol), start=1):
        when = SCANNED + timedelta(minutes=series.number, seconds=(frame - 1) * protocol.interval)
        for index in _order(grid, vendor):
            number += 1
            ds = _ct_slice(series, grid, index, number, "soft", kvp=80)
            stamp(ds, when)
            ds.SeriesTime = (SCANNED + timedelta(minutes=series.number)).strftime("%H%M%S.%f")
            ds.ContrastBolusAgent, ds.AcquisitionNumber = "SIMULATED IODINE", frame
            ds.TemporalPositionIdentifier, ds.NumberOfTemporalPositions = frame, protocol.frames
            set_pixels(ds, hu[index], vendor)
            yield ds


def _order(grid: Grid, vendor: Vendor) -> range:
    count = len(grid.heights)
    return range(count - 1, -1, -1) if vendor.head_to_foot else range(count)


def _ct_slice(series: Series, grid: Grid, index: int, number: int, kernel: str, kvp: int) -> Dataset:
    """A CT Image Storage instance without its pixels."""
    ds = series.header(CTImageStorage, number)
    ds.Modality, ds.PatientPosition = "CT", "HFS"
    ds.ImageType = list(series.vendor.image_type)
    ds.KVP, ds.ConvolutionKernel, ds.FilterType = kvp, series.vendor.kernels[kernel], "HEAD"
    ds.ScanOptions, ds.ProtocolName, ds.RotationDirection = "AXIAL MODE", "Head routine", "CW"
    ds.DataCollectionDiameter, ds.ReconstructionDiameter = 500.0, round(grid.spacing * grid.columns, 3)
    ds.AcquisitionNumber = 1
    ds.GantryDetectorTilt = round(series.vendor.tilt_sign * grid.tilt, 3)
    _place(ds, grid, index)
    ds.InstanceNumber = number
    return ds


def _place(ds: Dataset, grid: Grid, index: int) -> None:
    height = grid.heights[index]
    ds.ImagePositionPatient = [round(float(v), 6) for v in grid.first_voxel(height)]
    ds.ImageOrientationPatient = [1.0, 0.0, 0.0, *(round(float(v), 9) for v in grid.column_direction)]
    ds.PixelSpacing = [round(grid.spacing, 9)] * 2
    ds.SliceThickness, ds.SliceLocation = round(grid.thickness, 6), round(height, 6)


def set_pixels(ds: Dataset, hu: np.ndarray, vendor: Vendor) -> None:
    """Store HU as the vendor does; air outside the field of view gets the padding value where there is one."""
    stored = np.rint(hu).astype(np.int32) - vendor.intercept
    if vendor.padding is not None:
        rows, columns = np.indices(hu.shape)
        outside = np.hypot(rows - (hu.shape[0] - 1) / 2, columns - (hu.shape[1] - 1) / 2) > hu.shape[1] / 2
        stored[outside] = vendor.padding
        ds.PixelPaddingValue = vendor.padding
    low = 0 if not vendor.signed else -32768
    _grey(ds, np.clip(stored, low, 4095 if not vendor.signed else 32767), vendor.signed)
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = vendor.intercept, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 80


def _grey(ds: Dataset, stored: np.ndarray, signed: bool) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored = 16, 16 if signed else 12
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(signed)
    ds.LossyImageCompression = "00"
    ds.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()


def compress(ds: Dataset) -> Dataset:
    """JPEG-LS, lossless."""
    ds.compress(JPEGLSLossless, generate_instance_uid=False)
    return ds


def maps(patient: Patient, grid: Grid, vendor: Vendor) -> Iterator[Dataset]:
    """The operational truth, one series per map, as the objects that the vendor's console would send."""
    write_map = {"parametric map": _parametric, "secondary capture": _captures, "derived ct": _derived}[vendor.maps]
    for number, (name, values) in enumerate(patient.truth(grid).items()):
        series = Series(patient, vendor, f"truth {name}", FIRST_MAP_SERIES + number, f"{name} simulated truth")
        yield from write_map(series, grid, KINDS[name], values)


def _derived(series: Series, grid: Grid, kind: MapKind, values: np.ndarray) -> Iterator[Dataset]:
    """16-bit CT images whose rescale gives the physical unit."""
    slope = kind.ceiling / 4000.0
    for number, index in enumerate(_order(grid, series.vendor), start=1):
        ds = _ct_slice(series, grid, index, number, "soft", kvp=80)
        ds.ImageType = ["DERIVED", "PRIMARY", "AXIAL", f"CT_{kind.name.upper()}"]
        _grey(ds, np.clip(np.rint(values[index] / slope), 0, 4095), signed=False)
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, round(slope, 8), "US"
        ds.WindowCenter, ds.WindowWidth = kind.ceiling / 2, kind.ceiling
        yield ds


def _captures(series: Series, grid: Grid, kind: MapKind, values: np.ndarray) -> Iterator[Dataset]:
    """Colour captures with a bar at the right, red high, and no geometry, as consoles send them."""
    for number, index in enumerate(_order(grid, series.vendor), start=1):
        ds = series.header(SecondaryCaptureImageStorage, number)
        del ds.FrameOfReferenceUID, ds.PositionReferenceIndicator
        ds.Modality, ds.ConversionType, ds.InstanceNumber = "CT", "WSD", number
        ds.ImageType = ["DERIVED", "SECONDARY", "OTHER", kind.name.upper()]
        ds.SliceLocation, ds.PatientOrientation = round(grid.heights[index], 6), ""
        rgb = rainbow(np.clip(values[index] / kind.ceiling, 0, 1)) * (values[index] > 0)[..., None]
        rows, columns, _ = rgb.shape
        rgb[8 : rows - 8, columns - BAR - 4 : columns - 4] = rainbow(np.linspace(1, 0, rows - 16))[:, None]
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
        ds.Rows, ds.Columns = rows, columns
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
        ds.BurnedInAnnotation, ds.LossyImageCompression = "YES", "00"
        ds.PixelData = rgb.astype(np.uint8).tobytes()
        yield ds


def _parametric(series: Series, grid: Grid, kind: MapKind, values: np.ndarray) -> Iterator[Dataset]:
    """A floating point Parametric Map in physical units, frames in the order in which highdicom puts them."""
    sources = [_ct_slice(series, grid, index, index + 1, "soft", kvp=120) for index in range(len(grid.heights))]
    for source in sources:
        _grey(source, np.zeros((grid.rows, grid.columns)), signed=True)
    unit = CodedConcept(kind.ucum[0], "UCUM", kind.ucum[1])
    ds = ParametricMap(
        source_images=sources,
        pixel_array=values.astype(np.float32),
        series_instance_uid=series.uid(series.vendor.model, series.name, "series"),
        series_number=series.number,
        sop_instance_uid=series.uid(series.vendor.model, series.name, "map"),
        instance_number=1,
        manufacturer=series.vendor.manufacturer,
        manufacturer_model_name=series.vendor.model,
        software_versions="simulate",
        device_serial_number="0",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label=kind.name,
                lut_explanation=kind.title[:64],
                unit=unit,
                value_range=(0.0, float(max(kind.ceiling, values.max()))),
                slope=1.0,
                intercept=0.0,
                quantity_definition=CodedConcept(kind.quantity[0], "DCM", kind.quantity[1]),
            )
        ],
        voi_lut_transformations=[VOILUTTransformation(window_center=[kind.ceiling / 2], window_width=[kind.ceiling])],
    )
    ds.SeriesDescription, ds.SyntheticData, ds.ImageComments = series.description, "YES", MARK
    ds.BodyPartExamined = "HEAD"
    yield ds
