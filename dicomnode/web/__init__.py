"""The web service: DICOMweb, the administrator's page, health. Server-rendered; nothing is built or fetched."""
