variable "name" {
  description = "Of the cluster, and the beginning of what belongs to it."
  type        = string
  default     = "heliostat"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "a-z, 0-9 and dashes are allowed, 3 to 20 of them, the first a letter, the last no dash."
  }
}

variable "namespace" {
  description = "Kubernetes namespace of Heliostat's manifests, whose accounts heliostat and heliostat-head open the bucket."
  type        = string
  default     = "models"

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "A name that Kubernetes takes is needed: a-z, 0-9 and dashes, 63 at most."
  }
}

variable "admin_cidrs" {
  description = "Addresses from which the Kubernetes API is reached, such as [\"203.0.113.7/32\"]; never the whole world."
  type        = list(string)

  validation {
    condition     = length(var.admin_cidrs) > 0 && alltrue([for one in var.admin_cidrs : can(cidrnetmask(one)) && tonumber(split("/", one)[1]) >= 8])
    error_message = "At least one IPv4 block of /8 or smaller is needed: your own addresses."
  }
}

variable "gpu_pools" {
  description = "Pools of machines with GPUs, by name: kind, GPUs of one machine, least and most machines, spot price or not."
  type = map(object({
    machine = string
    gpus    = number
    min     = number
    max     = number
    spot    = bool
  }))
  default = {
    l4-spot = { machine = "g2-standard-8", gpus = 1, min = 0, max = 4, spot = true }
    l4      = { machine = "g2-standard-8", gpus = 1, min = 0, max = 2, spot = false }
  }

  validation {
    condition     = alltrue([for one in values(var.gpu_pools) : one.min >= 0 && one.min <= one.max && one.max > 0 && one.gpus > 0])
    error_message = "Each pool needs gpus > 0 and 0 <= min <= max, with max > 0."
  }

  validation {
    condition     = alltrue([for name in keys(var.gpu_pools) : can(regex("^[a-z][a-z0-9-]{0,18}[a-z0-9]$", name))])
    error_message = "Names of pools have 2 to 20 of a-z, 0-9 and dashes, the first a letter, the last no dash."
  }
}

variable "project" {
  description = "ID of a project of its own."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "The ID of a project is needed: 6 to 30 of a-z, 0-9 and dashes."
  }
}

variable "region" {
  description = "Region, such as europe-west4."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region such as europe-west4 is needed."
  }
}

variable "gpu_zones" {
  description = "Zones of the region that have the GPUs."
  type        = list(string)

  validation {
    condition     = length(var.gpu_zones) > 0 && alltrue([for one in var.gpu_zones : startswith(one, "${var.region}-")])
    error_message = "At least one zone of the region is needed."
  }
}

variable "accelerator" {
  description = "Kind of the GPUs, such as nvidia-l4, which the machines of all pools must fit."
  type        = string
  default     = "nvidia-l4"
}

variable "bucket" {
  description = "Name of the bucket for data, checkpoints and models; unique in the world."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "3 to 63 of a-z, 0-9 and dashes are needed, first and last no dash."
  }
}

variable "network" {
  description = "IPv4 block of the nodes."
  type        = string
  default     = "10.61.0.0/20"

  validation {
    condition     = can(cidrnetmask(var.network))
    error_message = "An IPv4 block is needed."
  }
}

variable "pods" {
  description = "IPv4 block of the pods."
  type        = string
  default     = "10.64.0.0/14"

  validation {
    condition     = can(cidrnetmask(var.pods))
    error_message = "An IPv4 block is needed."
  }
}

variable "services" {
  description = "IPv4 block of the services."
  type        = string
  default     = "10.62.0.0/20"

  validation {
    condition     = can(cidrnetmask(var.services))
    error_message = "An IPv4 block is needed."
  }
}

variable "system_machine" {
  description = "Kind of the machines for heads, MLflow, the operator and Prometheus; they are always there."
  type        = string
  default     = "e2-standard-8"
}
