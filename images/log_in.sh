# shellcheck shell=bash
# log_in ADDRESS: to the registry of an image, where it is an account's. From Amazon ECR Public anybody may pull:
# https://docs.aws.amazon.com/AmazonECR/latest/public/what-is-ecr.html
log_in() {
  case "$1" in
    *.dkr.ecr.*) aws ecr get-login-password | docker login --username AWS --password-stdin "${1%%/*}" ;;
  esac
}
