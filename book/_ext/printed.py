"""Offer the whole book as one PDF among each page's downloads, where tools/pdf.py prints it."""

import os

PDF = "kd-notes.pdf"


def offer(app, pagename, templatename, context, doctree):
    """Add the PDF to what the theme offers."""
    for group in context.get("header_buttons", []):
        if group["label"] == "download-buttons":
            group["buttons"].append(
                {
                    "type": "link",
                    "url": context["pathto"](PDF, 1),
                    "text": "book.pdf",
                    "tooltip": "Download the whole book",
                    "icon": "fas fa-file-pdf",
                    "label": "download-book-button",
                }
            )


def setup(app):
    """Connect the above to Sphinx, after the theme."""
    if "KD_NOTES_PDF" in os.environ:
        app.connect("html-page-context", offer, priority=502)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
