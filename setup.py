"""What pyramid_durable is and what it needs."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

requires = [
    "alembic>=1.13",
    # 3.11.2 is the first whose executors and job stores can be replaced the way this package
    # does it; 4 is another library under the same name.
    "APScheduler>=3.11.2,<4",
    "cronsim>=2.5",
    "hupper>=1.10",
    "kombu>=5.7",
    "plaster>=1.0",
    "pyramid>=2.0",
    "SQLAlchemy>=2.0",
    "transaction>=3.0,<6",
    # Time zones by name, on machines and images that have no zone database of their own.
    "tzdata",
    "tzlocal>=5.0",
    "venusian>=3.0",
    "zope.interface>=5.0",
    "zope.sqlalchemy>=3.0",
]

postgresql = ["psycopg[binary]>=3.2"]
mysql = ["PyMySQL>=1.0"]
redis = ["kombu[redis]>=5.7"]
process = ["Pebble>=5.0"]
demo = ["pyramid_jinja2>=2.10", "pyramid_tm>=2.5", "waitress>=2.1"]
# uWSGI in wheels; the package called uwsgi has to be compiled. Where there is no wheel, its tests
# are skipped.
uwsgi = [
    (
        "pyuwsgi>=2.0.30; sys_platform in 'linux darwin' and python_version < '3.15' "
        "and platform_machine in 'x86_64 aarch64 arm64'"
    )
]
testing = [
    *postgresql,
    *mysql,
    *redis,
    *process,
    *demo,
    "hypothesis>=6.90",
    # The application's own session may speak to PostgreSQL through the older driver.
    "psycopg2-binary>=2.9",
    *uwsgi,
    "pytest>=8.0",
    "pytest-xdist>=3.8",
    "WebTest>=3.0",
]
docs = ["Sphinx>=7.0"]

setup(
    name="pyramid_durable",
    version="0.1.0.dev0",
    description="Durable background and scheduled jobs for Pyramid applications",
    long_description="\n\n".join(
        (HERE / name).read_text(encoding="utf-8") for name in ("README.rst", "CHANGES.rst")
    ),
    long_description_content_type="text/x-rst",
    author="pyramid_durable contributors",
    license="MIT",
    keywords="pyramid wsgi jobs queue scheduler cron apscheduler kombu transaction sqlalchemy",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Pyramid",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP :: WSGI",
        "Topic :: System :: Distributed Computing",
    ],
    python_requires=">=3.10",
    # The demo and the tests are for a checkout and are not installed. Naming the root makes an
    # editable install put the whole checkout on the path, so that `demo` can be imported there.
    package_dir={"": "."},
    packages=find_packages(include=["pyramid_durable", "pyramid_durable.*"]),
    package_data={
        "pyramid_durable": ["py.typed"],
        "pyramid_durable.migrations": ["*.mako", "versions/*.py"],
    },
    zip_safe=False,
    install_requires=requires,
    extras_require={
        "postgresql": postgresql,
        "mysql": mysql,
        "redis": redis,
        "process": process,
        "demo": demo,
        "testing": testing,
        "docs": docs,
        "dev": [*testing, "import-linter>=2.1", "mypy>=1.11", "ruff>=0.9"],
    },
    entry_points={
        "console_scripts": [
            "pscheduler = pyramid_durable.scripts.pscheduler:main",
            "pjobs = pyramid_durable.scripts.pjobs:main",
        ],
    },
)
