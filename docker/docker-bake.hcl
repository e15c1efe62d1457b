# Run from the folder above docker/:
#   SOURCE=/path/to/IOPaint docker buildx bake -f docker/docker-bake.hcl cpu|gpu|all
#   VERSION=1.6.0 REGISTRY=registry.example.com/team/ docker buildx bake -f docker/docker-bake.hcl all --push
# Each variable is read from the environment.

variable "SOURCE" { default = "." }                    # folder (or git URL) with iopaint/ and web_app/
variable "FRONTEND" { default = "build" }              # build: npm run build; shipped: take web_app/dist as it is
variable "CUDA" { default = "13.0" }                   # of the GPU image: 13.0 (drivers from 580) or 12.6 (older drivers and GPUs)
variable "EXTRAS" { default = "" }                     # plugins (rembg and what it needs), xformers (CUDA 12.6 only); a space between
variable "VERSION" { default = "latest" }              # tag iopaint:<variant>-VERSION
variable "REGISTRY" { default = "" }                   # prefix of the tags, with its slash: registry.example.com/team/
variable "TAGS" { default = "" }                       # comma-separated tags in place of the one above, for one variant
# Base image with apt and Python 3.11 in its archive. `make constraints` takes the digest anew.
variable "BASE" { default = "debian:bookworm-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171" }
variable "BASE_ID" { default = "" }                    # its ID, which the image notes
variable "REFRESHED" { default = "" }                  # any text; another one takes Debian's packages anew, those of the base included
variable "REVISION" { default = "" }                   # commit, or digest of the tree
variable "RECIPE" { default = "" }                     # digest of the recipe
variable "CREATED" { default = "" }                    # RFC 3339
variable "SOURCE_DATE_EPOCH" { default = "" }          # seconds; the image's own time, for example the commit's
variable "RELEASE" { default = "1.6.0" }               # version for the target "release"
variable "RELEASE_SHA256" { default = "" }             # of its wheel, where docker/constraints/releases.txt has not that version
variable "CA_BUNDLE" { default = "" }                  # PEM file with extra CAs, handed over as a build secret
variable "WHEELHOUSE" { default = "" }                 # folder with wheels, in place of the indexes where it has all that is asked for
variable "CACHE_FROM" { default = "" }                 # build cache of another machine, as type=registry,ref=REPOSITORY:TAG
variable "CACHE_TO" { default = "" }                   # type=inline, or with the containerd image store type=registry,ref=…,mode=max
# Where downloads come from, as lines NAME=value that docker/build/with-network reads. A build secret, as a value may hold
# user:password@. Another one makes no other image.
variable "NETWORK" { default = "" }

# xformers has no build for the CPU.
function "extras" {
  params = [variant]
  result = join(" ", [for extra in split(" ", EXTRAS) : extra if notequal("", extra) && (equal("gpu", variant) || notequal("xformers", extra))])
}

group "default" { targets = ["all"] }
group "all" { targets = ["cpu", "gpu"] }

target "_network" {
  context = "docker"
  secret = compact([
    notequal("", CA_BUNDLE) ? "id=ca,src=${CA_BUNDLE}" : "",
    notequal("", NETWORK) ? "id=network,env=NETWORK" : "",
  ])
  # The proxies are named and empty, because buildx fills an unset one from the client's config.json.
  args = merge({
    BASE        = BASE
    HTTP_PROXY  = ""
    http_proxy  = ""
    HTTPS_PROXY = ""
    https_proxy = ""
    FTP_PROXY   = ""
    ftp_proxy   = ""
    ALL_PROXY   = ""
    all_proxy   = ""
    NO_PROXY    = ""
    no_proxy    = ""
  }, notequal("", REFRESHED) ? { REFRESHED = REFRESHED } : {})
}

target "_image" {
  name     = variant
  matrix   = { variant = ["cpu", "gpu"] }
  inherits = ["_network"]
  target   = variant
  contexts = merge({ source = SOURCE }, notequal("", WHEELHOUSE) ? { wheelhouse = WHEELHOUSE } : {})
  args = merge({
    VARIANT  = variant
    TORCH    = equal(variant, "cpu") ? "cpu" : "cu${replace(CUDA, ".", "")}"
    FRONTEND = FRONTEND
  }, notequal("", extras(variant)) ? { WITH_EXTRAS = "some", EXTRAS = extras(variant) } : {}, notequal("", SOURCE_DATE_EPOCH) ? { SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH } : {})
  cache-from = compact([CACHE_FROM])
  cache-to   = compact([CACHE_TO])
  tags = notequal("", TAGS) ? split(",", TAGS) : ["${REGISTRY}iopaint:${variant}-${VERSION}"]
  labels = merge({
    "org.opencontainers.image.title"    = "IOPaint"
    "org.opencontainers.image.version"  = VERSION
    "org.opencontainers.image.revision" = REVISION
    "org.opencontainers.image.created"  = CREATED
    "io.iopaint.fleet.recipe"           = RECIPE
    "io.iopaint.fleet.variant"          = variant
  }, notequal("", BASE_ID) ? { "io.iopaint.fleet.base" = "${BASE}@${BASE_ID}" } : {}, equal(variant, "gpu") ? { "io.iopaint.fleet.cuda" = CUDA } : {})
}

# The list of the Debian packages that an image would get, written to a folder:
#   docker buildx bake -f docker/docker-bake.hcl debian-packages --set debian-packages.output=type=local,dest=DIR
target "debian-packages" {
  inherits = ["_network"]
  target   = "debian-packages"
}

# A release of the Python index, written to a folder as a source tree:
#   docker buildx bake -f docker/docker-bake.hcl release --set release.output=type=local,dest=DIR
target "release" {
  inherits = ["_network"]
  target   = "release"
  args     = { RELEASE = RELEASE, RELEASE_SHA256 = RELEASE_SHA256 }
}
