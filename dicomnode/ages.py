"""How old a patient is, as far as the header tells."""

from pydicom import Dataset

PER_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}  # PS3.5 6.2, VR AS


def age(ds: Dataset) -> float | None:
    """Years, as stated or else from the date of birth; None where the header tells neither."""
    stated = in_years(str(ds.get("PatientAge") or ""))
    born, seen = (str(ds.get(keyword) or "") for keyword in ("PatientBirthDate", "StudyDate"))
    if stated is not None or not (len(born) == len(seen) == 8 and (born + seen).isdecimal()):
        return stated
    years = (int(seen) - int(born)) // 10000  # YYYYMMDD: a birthday that is still to come borrows a year
    return float(years) if years >= 0 else None


def in_years(age: str) -> float | None:
    """PS3.5 6.2, VR AS: nnnD, nnnW, nnnM or nnnY; None where the age is unknown."""
    number, unit = age[:-1], age[-1:].upper()
    return int(number) / PER_YEAR[unit] if number.isdecimal() and unit in PER_YEAR else None
