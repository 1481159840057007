"""What a site can have only where its address is known: previews of links, site map, 404.

The address is `html: baseurl` in _config.yml, with a slash at its end.
"""

from urllib.parse import urlsplit

PREVIEW = "_static/preview.png"
LARGE = '<meta name="twitter:card" content="summary_large_image" />'
EXTENSIONS = ["sphinxext.opengraph", "sphinx_sitemap", "notfound.extension"]


def setup(app):
    """Load the extensions, and tell each the address."""
    address = app.config.html_baseurl
    if address:
        parts = urlsplit(address)
        if not (parts.scheme and parts.netloc and address.endswith("/")):
            raise ValueError(f"html: baseurl must be a URL that ends with a slash, not {address}")
        for extension in EXTENSIONS:
            app.setup_extension(extension)
        app.config.ogp_site_url = address
        app.config.ogp_site_name = app.config.html_title
        app.config.ogp_image = PREVIEW
        app.config.ogp_image_alt = app.config.html_theme_options["logo"]["alt_text"]
        app.config.ogp_custom_meta_tags = [LARGE]
        app.config.sitemap_url_scheme = "{link}"
        app.config.sitemap_excludes = ["search.html", "genindex.html", "404.html"]
        app.config.notfound_urls_prefix = parts.path
    return {"parallel_read_safe": True, "parallel_write_safe": True}
